"""`evaluate mini --minutes`: measure on as many prompts as fit into the given time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from comfy_revelio.errors import RevelioError
from comfy_revelio.host.sae_files import SAEHandle

from .measure import (
    CONTRAST_STRENGTHS,
    FEATURE_STRENGTHS,
    PAPER_STRENGTHS,
    Steer,
    Strengths,
    Studio,
    bundled_saes,
    by_features,
    by_text,
    judge_figures,
    of_text_and_image,
    open_studio,
    prompt_figures,
    sae_figures,
)
from .prompts import CONCEPTS, Concept, Prompt, held_out_prompts, prompts_naming, prompts_without
from .steering_cost import ADDITION, REMOVAL, Rows, row, summary, verdict

USUAL_HOOK_POINT = "output_blocks.4.1"
"""The hook point at which Steer Features works best in the full evaluation. It is not chosen on the small
sample, where the best result is partly luck."""

SHARE_OF_PROMPTS = 0.3
"""The share of the time spent on prompts without steering if steering is measured too."""

FIRST_CHUNK, CHUNK = 2, 16
"""Images generated between two checks of the clock; the first chunk also loads and warms up the model."""

PROMPTS_AT_ONCE = 8
"""How many prompts are measured at once, at most, for one concept and one direction of steering."""

Clock = Callable[[], float]
Say = Callable[[str], None]


@dataclass
class _Seen:
    """The prompts for one concept and direction, and the judge's values for their images."""

    prompts: list[Prompt] = field(default_factory=list)
    plain: list[torch.Tensor] = field(default_factory=list)
    steered: dict[str, list[torch.Tensor]] = field(default_factory=dict)


def evaluate_in(
    minutes: float,
    n_prompts: int = 512,
    n_steering: int = 128,
    *,
    started: float | None = None,
    say: Say = print,
    clock: Clock = time.monotonic,
) -> dict[str, Any]:
    """Run `evaluate` at the usual strengths on the largest sample that fits into `minutes`.

    n_prompts, n_steering: the most prompts to measure; n_steering=0 leaves out steering. started: the time
    on `clock` from which `minutes` count, by default now. The report states each sample's size and omits
    `steering` if no prompt fits.
    """
    start = clock() if started is None else started
    end = start + minutes * 60
    say(f"Measuring on the sample that fits {minutes:g} minutes.")
    studio, saes = open_studio(), bundled_saes()
    now = clock()
    share = SHARE_OF_PROMPTS if n_steering else 1.0
    found, prompts, seconds = look_until(studio, n_prompts, now + share * (end - now), clock)
    report: dict[str, Any] = {
        "mini_model": prompt_figures(found, prompts, say),
        "judge": judge_figures(),
        "saes": [sae_figures(sae) for sae in saes],
    }
    if n_steering:
        steering = steer_until(studio, saes, n_steering, end, seconds, say=say, clock=clock)
        if steering:
            report["steering"] = steering
        else:
            say("Steering is left out: not even one prompt for one concept fits into the time.")
    say(f"This took {(clock() - start) / 60:.1f} of {minutes:g} minutes.")
    return report


def look_until(
    studio: Studio, most: int, end: float, clock: Clock
) -> tuple[torch.Tensor, list[Prompt], float]:
    """Generate images of held-out prompts until `end`, but always the first few.

    Return the judge's values int64 [n, attributes], the n prompts and the latest seconds per image.
    """
    prompts = held_out_prompts(most)
    found: list[torch.Tensor] = []
    done, chunk, seconds = 0, min(FIRST_CHUNK, most), 0.0
    while chunk:
        before = clock()
        found.append(studio.look(studio.plain, prompts[done : done + chunk]))
        seconds = (clock() - before) / chunk
        done += chunk
        chunk = _fitting(end - clock(), seconds, min(CHUNK, most - done))
    return torch.cat(found), prompts[:done], seconds


def steer_until(
    studio: Studio,
    saes: Sequence[SAEHandle],
    most: int,
    end: float,
    seconds: float,
    *,
    say: Say,
    clock: Clock,
) -> dict[str, Any]:
    """Until `end`, measure how well each method removes and adds each concept, on up to `most` prompts each.

    seconds: a first estimate of the time per image, updated with each concept. At a steady speed, all
    concepts get the same number of prompts; row["n"] is the actual number. Return {} if no prompt fits.
    """
    text, image = of_text_and_image(saes)
    points = {sae.dictionary.hook_point: by_features(studio, sae) for sae in image}
    methods: dict[str, tuple[Steer, Strengths]] = {
        "steer_concept_contrast": (by_text(studio, text, "contrast"), CONTRAST_STRENGTHS),
        "steer_concept_paper": (by_text(studio, text, "paper"), PAPER_STRENGTHS),
        **{point: (method, FEATURE_STRENGTHS) for point, method in points.items()},
    }
    seen: dict[tuple[str, str], _Seen] = {}
    images = 2 * (1 + len(methods))  # for one prompt in each direction
    while todo := [concept for concept in CONCEPTS if _known(seen, concept) < most]:
        for number, concept in enumerate(todo):
            left = end - clock()
            largest = min(PROMPTS_AT_ONCE, most - _known(seen, concept))
            size = _fitting(left, seconds * images * (len(todo) - number), largest)
            if not size and not _known(seen, concept):
                size = _fitting(left, seconds * images, 1)  # a few concepts are better than none
            before = clock()
            if not size or not _add(studio, methods, concept, size, seen, end, clock):
                return _report(seen, methods, list(points)) if seen else {}
            seconds = (clock() - before) / (size * images)
            say(f"{concept.name}: {size} more prompts, about {max(0.0, end - clock()):.0f} s left")
    return _report(seen, methods, list(points))


def _known(seen: dict[tuple[str, str], _Seen], concept: Concept) -> int:
    """Return how many prompts have been measured for each direction of a concept."""
    return len(seen[REMOVAL, concept.name].prompts) if (REMOVAL, concept.name) in seen else 0


def _fitting(time_left: float, seconds: float, most: int) -> int:
    """Return how many images (or prompts), each taking `seconds`, fit into the time left; at most `most`."""
    return most if seconds <= 0 else max(0, min(most, int(time_left / seconds)))


def _add(
    studio: Studio,
    methods: dict[str, tuple[Steer, Strengths]],
    concept: Concept,
    size: int,
    seen: dict[tuple[str, str], _Seen],
    end: float,
    clock: Clock,
) -> bool:
    """Measure `size` more prompts of a concept per direction; if `end` passes, add nothing, return False."""
    added: dict[str, _Seen] = {}
    for direction, collect in ((REMOVAL, prompts_naming), (ADDITION, prompts_without)):
        known = _known(seen, concept)
        prompts = collect(concept, known + size)[known:]
        new = added[direction] = _Seen(prompts, [studio.look(studio.plain, prompts)])
        for name, (method, strengths) in methods.items():
            if clock() > end:
                return False
            try:
                branch = method(concept, strengths[direction][0])
            except RevelioError:  # the method has no feature for the concept and so changes nothing
                new.steered[name] = new.plain
                continue
            new.steered[name] = [studio.look(branch, prompts)]
    for direction, new in added.items():
        old = seen.setdefault((direction, concept.name), _Seen())
        old.prompts += new.prompts
        old.plain += new.plain
        for name, found in new.steered.items():
            old.steered.setdefault(name, []).extend(found)
    return True


def _report(
    seen: dict[tuple[str, str], _Seen], methods: dict[str, tuple[Steer, Strengths]], points: Sequence[str]
) -> dict[str, Any]:
    rows: dict[str, Rows] = {name: {REMOVAL: {}, ADDITION: {}} for name in methods}
    for (direction, name), sample in seen.items():
        concept = next(concept for concept in CONCEPTS if concept.name == name)
        before = verdict(torch.cat(sample.plain), sample.prompts, concept, direction)
        for method, found in sample.steered.items():
            after = verdict(torch.cat(found), sample.prompts, concept, direction)
            strength = methods[method][1][direction][0]
            rows[method][direction][name] = row(before, after, strength=strength, n=len(sample.prompts))
    count = min(len(sample.prompts) for sample in seen.values())
    best = USUAL_HOOK_POINT if USUAL_HOOK_POINT in points else points[-1]
    named = {name: name for name in methods if name not in points} | {"steer_features": best}
    return {
        "n_per_concept": count,
        "concepts": list(dict.fromkeys(name for _, name in seen)),
        "best_hook_point": best,
        "hook_points": {"n_per_concept": count, **{point: summary(rows[point]) for point in points}},
        **{name: {**rows[key], "summary": summary(rows[key])} for name, key in named.items()},
    }
