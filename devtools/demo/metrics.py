"""Measure for the demo: the judge's verdict on the demo's images, and the evaluation of the bundled model."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..places import ROOT, Places
from ..problem import Problem
from ..process import TAIL_LINES, call_quietly

ALWAYS, STEERING = ("mini_model", "judge", "saes"), "steering"
"""The report's entries that the evaluation always measures, and the entry that it measures on request."""

NOTE = (
    "The steering metrics in this report come from the images of workflows 02 and 03 alone: one concept, and "
    "one prompt with four seeds for each direction. The metrics of the full sample, 128 prompts for each of "
    "five concepts, are in README.md and sae_weights/revelio_mini/README.md; `python3 dev.py run -- python "
    "-m comfy_revelio evaluate mini --json output/evaluation.json` measures them again in about an hour on "
    "two cores."
)
"""A note in the report of the short demo."""

FEW = "the steering metrics of the full sample are in the README and on the page"
"""A short form of the note, printed as the demo's last line."""

CONCEPT = "glasses"
PROMPTED = {"style": "flat cartoon", "background": "green", "hair": "blue", "mood": "smile"}
"""What the prompts of workflows 02 and 03 ask for besides the steered concept."""

PAIRS = (
    ("steer_features", "removal", "02_down"),
    ("steer_features", "addition", "02_up"),
    ("steer_concept_contrast", "removal", "03_down"),
    ("steer_concept_contrast", "addition", "03_up"),
)
"""Method, direction, and the common prefix of the names of the unsteered and the steered images."""


def judge_images(images: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    """Return the report's entry `steering`, measured on the images of workflows 02 and 03.

    images: for each batch name, a list of PNG files. Methods that lack some of their images are left out.
    """
    from lab.data.attributes import index_of
    from lab.evaluate.judge import load_judge
    from lab.evaluate.prompts import CONCEPTS, Prompt
    from lab.evaluate.steering_cost import row, summary, verdict

    judge = load_judge()
    (concept,) = (concept for concept in CONCEPTS if concept.name == CONCEPT)
    labels = {name: index_of(name, value) for name, value in PROMPTED.items()}
    rows: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    counts = set()
    for method, direction, name in PAIRS:
        batches = [images.get(f"{name}_{kind}", ()) for kind in ("without", "steered")]
        if not all(batches):
            continue
        verdicts = []
        for batch in batches:
            prompts = [Prompt("", labels, frozenset(labels), seed) for seed in range(len(batch))]
            verdicts.append(verdict(judge.label(_tensor(batch)), prompts, concept, direction))
        counts.add(len(batches[0]))
        rows.setdefault(method, {})[direction] = {CONCEPT: row(*verdicts, n=len(batches[0]))}
    whole = {method: found for method, found in rows.items() if len(found) == 2}
    if not whole:
        return {}
    return {"n_per_concept": min(counts), "concepts": [CONCEPT]} | {
        method: {**found, "summary": summary(found)} for method, found in whole.items()
    }


def evaluate(places: Places, output: Path, minutes: float, *, steering: bool) -> dict[str, Any]:
    """Measure the bundled model, its judge, its SAEs and, if asked, steering, in about `minutes`."""
    file = output / "evaluation.json"
    file.unlink(missing_ok=True)
    command: list[object] = [places.python, "-m", "comfy_revelio", "evaluate", "mini"]
    command += ["--minutes", f"{minutes:.2f}", "--json", file]
    command += [] if steering else ["--steering", "0"]
    code, printed = call_quietly(command, env=places.variables(), cwd=ROOT)
    end = "\n".join(printed.splitlines()[-TAIL_LINES:])
    if code != 0 or not file.is_file():
        raise Problem(f"The evaluation of the bundled model failed with exit code {code}.", end)
    measured = dict(json.loads(file.read_text(encoding="utf-8")))
    if missing := [key for key in ALWAYS if key not in measured]:
        raise Problem(f"The evaluation left out {', '.join(missing)}.", end)
    file.unlink()
    return measured


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report's headline numbers, one per line; missing numbers are left out."""
    mini = report.get("mini_model", {})
    lines = []
    if "prompt_accuracy" in mini:
        lines.append(
            f"prompted attributes found in the images: {mini['prompt_accuracy']:.1%} of cases "
            f"({mini.get('n_prompts', '?')} prompts)"
        )
    if "accuracy" in report.get("judge", {}):
        lines.append(f"the judge's own accuracy on rendered avatars: {report['judge']['accuracy']:.1%}")
    for sae in report.get("saes", []):
        lines.append(
            f"SAE at {sae['hook_point']}: {sae['n_features']} features, k {sae['k']}, "
            f"explained variance {sae['explained_variance']:.3f}, dead {sae['dead_share']:.1%}"
        )
    steering = report.get(STEERING, {})
    if "concepts" in steering:
        count, concepts = counted(steering["n_per_concept"], "image"), ", ".join(steering["concepts"])
        lines.append(f"steering, measured on {count} for each direction of {concepts}:")
    for name, found in steering.items():
        if name.startswith("steer_"):
            mean = found["summary"]
            lines.append(
                f"{name}: removes {mean['removal_relative']:.0%} (costs other attributes "
                f"{mean['removal_cost'] * 100:.1f} points), adds {mean['addition_points'] * 100:.0f} points "
                f"(costs {mean['addition_cost'] * 100:.1f})"
            )
    return lines


def counted(number: int, what: str) -> str:
    """Write a number with its noun: 1 image, 2 images."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _tensor(batch: Sequence[bytes]) -> Any:
    """Decode PNG files of equal size to images [n, H, W, 3] in 0..1."""
    import numpy as np
    import torch

    arrays = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in batch]
    return torch.from_numpy(np.stack(arrays)).float() / 255
