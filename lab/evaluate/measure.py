"""Measure Revelio Mini and its steering: ComfyUI makes the images, the judge gives the verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from comfy_revelio.dictionary import load_dictionary
from comfy_revelio.errors import RevelioError
from comfy_revelio.host import sae_files
from comfy_revelio.host.mini import config
from comfy_revelio.host.mini.model import load_mini
from comfy_revelio.host.mini.weights import load_weights
from comfy_revelio.host.record.generation import generate_images
from comfy_revelio.host.sae_files import SAEHandle
from comfy_revelio.host.steering import steer
from comfy_revelio.host.text.concept import ConceptPrompts, Method, steer_concept
from comfy_revelio.steering import Intervention, parse_selection

from ..train.precision import quick_dtype
from .judge import JUDGE_FILE, Judge, load_judge
from .notes import Notes
from .prompts import (
    CONCEPTS,
    Concept,
    Prompt,
    accuracies,
    chance,
    held_out_prompts,
    mean,
    prompts_naming,
    prompts_without,
)
from .steering_cost import ADDITION, REMOVAL, Rows, Verdict, gain, merit, row, summary, verdict

SAMPLING: dict[str, Any] = {"steps": 20, "cfg": 3.0, "sampler": "euler", "scheduler": "normal"}

Strengths = dict[str, tuple[float, ...]]
"""The strengths to try in each direction; without tuning, only the first strength is used."""

CONTRAST_STRENGTHS: Strengths = {REMOVAL: (-1.25, -1.0, -1.5), ADDITION: (0.7, 0.5, 1.0)}
PAPER_STRENGTHS: Strengths = {REMOVAL: (-0.5, -0.25, -1.0), ADDITION: (1.0, 0.5, 0.25)}
FEATURE_STRENGTHS: Strengths = {REMOVAL: (-2.5, -2.0, -3.0), ADDITION: (2.0, 1.5, 1.0)}

TUNING_PROMPTS = 8
_TUNING_START = 5_000_000


@dataclass(frozen=True)
class Branch:
    """One way to make an image: a model, a CLIP for the prompt, and a CLIP for the negative prompt."""

    model: Any
    clip: Any
    negative_clip: Any


@dataclass(frozen=True)
class Studio:
    """The bundled model, its judge, the unsteered branch, and what has been measured so far."""

    plain: Branch
    vae: Any
    judge: Judge
    notes: Notes = field(default_factory=Notes)

    def look(self, branch: Branch, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Generate an image of each prompt with `branch`; return the judge's values int64 [n, attributes]."""
        images = generate_images(
            branch.model,
            branch.clip,
            self.vae,
            [prompt.text for prompt in prompts],
            [prompt.seed for prompt in prompts],
            negative_clip=branch.negative_clip,
            **SAMPLING,
        )
        return self.judge.label(images)


Steer = Callable[[Concept, float], Branch]
"""A steering method: (concept, strength) -> the branch that makes the steered images."""


def open_studio(notes: Path | None = None) -> Studio:
    """Load the bundled model in the precision that is fastest here; in checks, it never changed a verdict.

    notes: the file that stores measured results, so that an interrupted evaluation resumes.
    """
    model, clip, vae = load_mini(dtype=quick_dtype())
    return Studio(Branch(model, clip, clip), vae, load_judge(), Notes(notes))


def bundled_saes() -> list[SAEHandle]:
    """Load the SAEs that come with the pack, in the order of their file names."""
    files = sorted(config.WEIGHTS_DIR.parent.glob("*.safetensors"))
    return [sae_files.handle(load_dictionary(file), file.stem) for file in files]


def evaluate(
    n_prompts: int = 512,
    n_steering: int = 128,
    *,
    tune: bool = True,
    notes: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure the whole bundle; return a JSON-able dict with the keys mini_model, judge, saes, steering.

    n_steering: prompts per concept and direction; 0 leaves out steering. tune: first choose each method's
    strengths on separate prompts instead of using the usual ones. notes: the file from which an interrupted
    evaluation resumes.
    """
    studio = open_studio(notes)
    saes = bundled_saes()
    report: dict[str, Any] = {
        "mini_model": studio.notes.once(
            f"{n_prompts} prompts", lambda: measure_prompts(studio, n_prompts, say)
        ),
        "judge": judge_figures(),
        "saes": [sae_figures(sae) for sae in saes],
    }
    if n_steering:
        report["steering"] = measure_steering(studio, saes, n_steering, tune=tune, say=say)
    return report


def measure_prompts(studio: Studio, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure how often the judge finds what held-out prompts ask for."""
    prompts = held_out_prompts(count)
    return prompt_figures(studio.look(studio.plain, prompts), prompts, say)


def prompt_figures(
    found: torch.Tensor, prompts: Sequence[Prompt], say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the accuracy on the prompts, given the judge's values `found`, int64 [n, attributes]."""
    by_attribute = accuracies(found, prompts)
    figures = {
        "prompt_accuracy": mean(list(by_attribute.values())),
        "worst": min(by_attribute, key=by_attribute.__getitem__),
        "by_attribute": by_attribute,
        "chance": chance(prompts),
        "n_prompts": len(prompts),
        **SAMPLING,
    }
    say(
        f"prompt accuracy {figures['prompt_accuracy']:.3f} on {len(prompts)} held-out prompts, "
        f"worst: {figures['worst']}"
    )
    return figures


def judge_figures() -> dict[str, Any]:
    """Return the judge's accuracy on held-out renders, measured when the judge was trained."""
    settings = json.loads(load_weights(JUDGE_FILE)[1]["config"])
    by_attribute = dict(settings["accuracy"])
    return {
        "accuracy": by_attribute.pop("mean"),
        "by_attribute": by_attribute,
        "n_renders": settings["n_held_out"],
    }


def sae_figures(sae: SAEHandle) -> dict[str, Any]:
    d = sae.dictionary
    return {"name": sae.name, "hook_point": d.hook_point, "n_features": d.n_features, "k": d.k, **d.metrics}


@dataclass(frozen=True)
class Case:
    """A concept to remove from images or add to them, their prompts, and the verdict without steering."""

    concept: Concept
    direction: str
    prompts: Sequence[Prompt]
    before: Verdict


def measure_steering(
    studio: Studio, saes: Sequence[SAEHandle], count: int, *, tune: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure how well each method removes and adds each concept, against unsteered images of the same seeds.

    The hook point of Steer Features and, with `tune`, the strengths are chosen on separate prompts.
    """
    text, image = of_text_and_image(saes)
    trial = cases(studio, TUNING_PROMPTS if tune else max(2, count // 2), first=_TUNING_START, say=say)
    full = cases(studio, count, say=say)

    def tried(name: str, method: Steer, strengths: Strengths, used: slice) -> Rows:
        choices = {(c.direction, c.concept.name): strengths[c.direction][used] for c in trial}
        return run_cases(studio, f"trial of {name}", method, trial, choices, say)

    points = {sae.dictionary.hook_point: by_features(studio, sae) for sae in image}
    effects = {p: summary(tried(p, method, FEATURE_STRENGTHS, slice(1))) for p, method in points.items()}
    best = max(effects, key=lambda point: merit(effects[point]))
    methods = {
        "steer_concept_contrast": (by_text(studio, text, "contrast"), CONTRAST_STRENGTHS),
        "steer_concept_paper": (by_text(studio, text, "paper"), PAPER_STRENGTHS),
        "steer_features": (points[best], FEATURE_STRENGTHS),
    }
    result: dict[str, Any] = {"n_per_concept": count, "best_hook_point": best}
    result["hook_points"] = {"n_per_concept": len(trial[0].prompts), **effects}
    for name, (method, strengths) in methods.items():
        rows = tried(name, method, strengths, slice(None)) if tune else _usual(strengths)
        chosen = {
            (c.direction, c.concept.name): (rows[c.direction][c.concept.name]["strength"],) for c in full
        }
        measured = run_cases(studio, name, method, full, chosen, say)
        result[name] = {**measured, "summary": summary(measured)}
    return result


def of_text_and_image(saes: Sequence[SAEHandle]) -> tuple[SAEHandle, list[SAEHandle]]:
    """Return the SAE of the text encoder and the SAEs of the UNet."""
    text = [sae for sae in saes if sae.dictionary.hook_point.startswith("layers.")]
    image = [sae for sae in saes if sae not in text]
    if not text or not image:
        raise RevelioError("Bundled SAEs of the text encoder and of the UNet are needed to measure steering.")
    return text[0], image


def cases(studio: Studio, count: int, *, first: int = 0, say: Callable[[str], None] = print) -> list[Case]:
    """Return a case with `count` prompts for every concept and direction; `first` selects other prompts."""
    found = []
    for concept in CONCEPTS:
        for direction, collect in ((REMOVAL, prompts_naming), (ADDITION, prompts_without)):
            prompts = collect(concept, count, first=first)
            before = studio.notes.once(
                f"unsteered, {direction} of {concept.name}, {count} from {first}",
                partial(_unsteered, studio, prompts, concept, direction),
            )
            found.append(Case(concept, direction, prompts, before))
            say(f"unsteered, for {direction} of {concept.name}: rate {before['rate']:.2f}")
    return found


def run_cases(
    studio: Studio,
    name: str,
    method: Steer,
    todo: Sequence[Case],
    strengths: Mapping[tuple[str, str], Sequence[float]],
    say: Callable[[str], None],
) -> Rows:
    """Measure each case at each of its strengths; return the best strength's row by direction and concept."""
    rows: Rows = {REMOVAL: {}, ADDITION: {}}
    for case in todo:
        before = case.before
        outcomes = {
            s: studio.notes.once(
                f"{name}, {case.direction} of {case.concept.name} at {s:+g}, {len(case.prompts)}",
                partial(_after, studio, method, case, s),
            )
            for s in strengths[case.direction, case.concept.name]
        }
        strength = max(outcomes, key=lambda s: gain(case.direction, case.before, outcomes[s]))
        after = outcomes[strength]
        rows[case.direction][case.concept.name] = row(before, after, strength=strength)
        say(
            f"{name}, {case.direction} of {case.concept.name} at {strength:+g}: rate {before['rate']:.2f} -> "
            f"{after['rate']:.2f}, others {before['others']:.3f} -> {after['others']:.3f}"
        )
    return rows


def _usual(strengths: Strengths) -> Rows:
    """Return the usual strength of every concept, in the form in which a trial returns its rows."""
    return {way: {c.name: {"strength": tried[0]} for c in CONCEPTS} for way, tried in strengths.items()}


def by_text(studio: Studio, sae: SAEHandle, method: Method) -> Steer:
    """Return a `Steer` that applies Steer Concept with `method` in the text encoder."""

    def branch(concept: Concept, strength: float) -> Branch:
        positive, negative, _ = steer_concept(
            studio.plain.clip, sae, ConceptPrompts(concept.name), strength, method
        )
        return Branch(studio.plain.model, positive, negative)

    return branch


def by_features(studio: Studio, sae: SAEHandle) -> Steer:
    """Return a `Steer` that applies Steer Features with an SAE and the concept stored in it."""

    def branch(concept: Concept, strength: float) -> Branch:
        selection = parse_selection(concept.name, sae.dictionary, sae.dictionary.concepts)
        model = steer(studio.plain.model, Intervention(sae.dictionary, selection, strength), sae)
        return Branch(model, studio.plain.clip, studio.plain.negative_clip)

    return branch


def _unsteered(
    studio: Studio, prompts: Sequence[Prompt], concept: Concept, direction: str
) -> dict[str, float]:
    return verdict(studio.look(studio.plain, prompts), prompts, concept, direction)


def _after(studio: Studio, method: Steer, case: Case, strength: float) -> dict[str, float]:
    """Return the verdict on the steered images, or on the unsteered images if no feature has the concept."""
    try:
        branch = method(case.concept, strength)
    except RevelioError:
        return case.before
    return verdict(studio.look(branch, case.prompts), case.prompts, case.concept, case.direction)
