"""Compute what steering achieved and what it cost from the judge's answers; needs no model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .prompts import Concept, Prompt, mean, others, rate

REMOVAL, ADDITION = "removal", "addition"
ALLOWED_COST = {REMOVAL: 0.02, ADDITION: 0.05}

Verdict = dict[str, float]
"""The share of images with the concept ("rate") and the mean accuracy of the other attributes ("others")."""

Rows = dict[str, dict[str, dict[str, float]]]
"""By direction and concept: the verdicts without and with steering, and the strength or number of prompts."""


def verdict(found: torch.Tensor, prompts: Sequence[Prompt], concept: Concept, direction: str) -> Verdict:
    """Score a concept and all other attributes, given the judge's values `found`, int64 [n, attributes]."""
    return {
        "rate": rate(found, concept, also=direction == REMOVAL),
        "others": others(found, prompts, concept),
    }


def row(before: Verdict, after: Verdict, **more: float) -> dict[str, float]:
    """Return a row of the report: the verdict on a concept without and with steering, and `more` entries."""
    return {
        **more,
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
    }


def gain(direction: str, before: Verdict, after: Verdict) -> float:
    """Return the rate's change in the wanted direction minus three times the cost beyond ALLOWED_COST."""
    moved = after["rate"] - before["rate"]
    cost = before["others"] - after["others"]
    wanted = -moved if direction == REMOVAL else moved
    return wanted - 3 * max(0.0, cost - ALLOWED_COST[direction])


def summary(rows: Rows) -> dict[str, float]:
    """Return means over concepts: relative removal, points added, and the cost of each (loss in "others")."""
    removal, addition = list(rows[REMOVAL].values()), list(rows[ADDITION].values())
    return {
        "removal_relative": mean([_relative_fall(r["rate_before"], r["rate_after"]) for r in removal]),
        "removal_cost": mean([r["others_before"] - r["others_after"] for r in removal]),
        "addition_points": mean([r["rate_after"] - r["rate_before"] for r in addition]),
        "addition_cost": mean([r["others_before"] - r["others_after"] for r in addition]),
    }


def merit(summary: dict[str, float]) -> float:
    """Return a score for comparing hook points: what steering achieved minus three times what it cost."""
    gained = summary["removal_relative"] + summary["addition_points"]
    return gained - 3 * (summary["removal_cost"] + summary["addition_cost"])


def _relative_fall(before: float, after: float) -> float:
    """Return the share of the rate `before` that steering removed; 0 if there was nothing to remove."""
    return 1 - after / before if before else 0.0
