"""Write the metrics section of the demo's page, which also explains each metric."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from ..places import ROOT
from .metrics import counted

CARD = "sae_weights/revelio_mini/README.md"
"""The model card, which contains the metrics of the full sample."""

METHODS = {
    "steer_features": "Steer Features",
    "steer_concept_contrast": "Steer Concept, contrast",
    "steer_concept_paper": "Steer Concept, paper",
}


def metrics_section(report: Mapping[str, Any], link: Callable[[str], str]) -> str:
    """Return the report's metrics as HTML. link: turns a file name in the repository into a link."""
    parts = [_steering(report, link), _model(report), _saes(report)]
    return "\n".join(part for part in parts if part)


def _steering(report: Mapping[str, Any], link: Callable[[str], str]) -> str:
    steering = report.get("steering", {})
    rows = [
        [METHODS.get(name, name), *_effect(found["summary"])]
        for name, found in steering.items()
        if name.startswith("steer_")
    ]
    if not rows:
        return ""
    concepts = steering.get("concepts", [])
    sample = (
        f"{counted(steering['n_per_concept'], 'image')} for each direction"
        + (f" of {_and(concepts)}" if concepts else "")
        + ", each with the same prompt and seed without steering."
    )
    head = ["method", "removed", "cost (points)", "added (points)", "cost (points)"]
    parts = [
        "<h3>Steering</h3>",
        "<p>A judge looks at every image: a small classifier that was trained on drawn avatars and never "
        "saw an image of this model. <em>Removed</em> is the share of images that had the concept and have "
        "lost it. <em>Added</em> is how many more images in a hundred have it. <em>Cost</em> is by how many "
        "percentage points the accuracy of everything else in the prompt fell: lower is better, and below 0 "
        "the accuracy rose. The judge does not see damage, such as smeared eyes.</p>",
        f"<p>Measured now, on {escape(sample)} The fewer images, the less exact the numbers.</p>",
        table(head, rows),
    ]
    full = full_sample()
    if full:
        parts.append(
            f"<p>Measured before, on the full sample ({escape(full[0])}) of five concepts; more is in the "
            f'<a href="{link(CARD)}">model card</a>:</p>'
        )
        parts.append(table(head, full[1]))
    return "\n".join(parts)


def full_sample() -> tuple[str, list[list[str]]] | None:
    """Return the sample size and the rows (one per method) of the model card's steering table."""
    text = (ROOT / CARD).read_text(encoding="utf-8")
    block = re.search(r"<!-- figures: steering -->\n(.*?)\n<!-- /figures -->", text, re.DOTALL)
    size = block and re.match(r"(\d+ prompts per concept and direction)", block[1])
    if not block or not size:
        return None
    lines = block[1].partition("\n|")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return size[1], [[row[0].replace("`", ""), *row[1:]] for row in rows]


def _model(report: Mapping[str, Any]) -> str:
    mini, judge = report.get("mini_model"), report.get("judge")
    if not mini or not judge:
        return ""
    rows = [
        [
            name,
            f"{share:.0%}",
            f"{mini['chance'][name]:.0%}" if name in mini.get("chance", {}) else "",
            f"{judge['by_attribute'][name]:.1%}" if name in judge.get("by_attribute", {}) else "",
        ]
        for name, share in mini["by_attribute"].items()
    ]
    rows.append(["mean", f"{mini['prompt_accuracy']:.1%}", "", f"{judge['accuracy']:.1%}"])
    head = ["attribute", "prompted value found", "best constant answer", "judge on drawn avatars"]
    return (
        "<h3>Does the model draw what the prompt asks for?</h3><p>How often the judge finds what "
        f"{mini['n_prompts']} prompts asked for. The prompts combine attributes in ways that the model never "
        "saw in training. The <em>best constant answer</em> is the accuracy of always giving the same "
        "answer. The judge's own accuracy was measured when it was trained, on drawn avatars whose "
        "attributes are known.</p>" + table(head, rows)
    )


def _saes(report: Mapping[str, Any]) -> str:
    rows = [
        [
            sae["name"],
            sae["hook_point"],
            str(sae["n_features"]),
            str(sae["k"]),
            f"{sae['explained_variance']:.3f}",
            f"{sae['l0']:.1f}" if "l0" in sae else "",
            f"{sae['dead_share']:.1%}",
        ]
        for sae in report.get("saes", [])
    ]
    if not rows:
        return ""
    return (
        "<h3>The bundled SAEs</h3><p>A sparse autoencoder rewrites each activation of a layer as a few "
        "features: at most <em>k</em>, and <em>L0</em> on average. <em>Explained variance</em> is the share "
        "of the activations' variance that these features reproduce. <em>Dead</em> features never fire. "
        "Measured when the SAEs were trained, on activations that were held out from training.</p>"
        + table(["file", "hook point", "features", "k", "explained variance", "L0", "dead"], rows)
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table that scrolls sideways if the window is narrow."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'


def _effect(summary: Mapping[str, float]) -> list[str]:
    return [
        f"{summary['removal_relative']:.0%}",
        f"{summary['removal_cost'] * 100 + 0.0:.1f}",
        f"{summary['addition_points'] * 100:.0f}",
        f"{summary['addition_cost'] * 100 + 0.0:.1f}",
    ]


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
