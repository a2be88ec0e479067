"""Format tables as aligned text that is also Markdown, because ComfyUI previews text as either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..dictionary import Concept, Dictionary
    from ..steering import Selection
    from ..trace import FeatureScore

_HEADER = ("feature", "label", "peak", "mean", "share of tokens")


def feature_table(scores: Sequence[FeatureScore]) -> str:
    """List scores in the given order: feature number, label, peak and mean value, share of tokens.

    The label column is omitted if no feature has a label.
    """
    if not scores:
        return "No feature is active here."
    rows = [
        (f"#{s.feature}", s.label or "-", f"{s.peak:.3g}", f"{s.mean:.3g}", f"{100 * s.share:.1f} %")
        for s in scores
    ]
    kept = [0, 1, 2, 3, 4] if any(s.label for s in scores) else [0, 2, 3, 4]
    return table(
        [_HEADER[c] for c in kept], [[row[c] for c in kept] for row in rows], numbers_from=len(kept) - 3
    )


def selection_table(selection: Selection, dictionary: Dictionary) -> str:
    """List the selected features, then the selected concepts, with their weights."""
    known = {id(concept): name for name, concept in dictionary.concepts.items()}
    pairs = zip(selection.features, selection.weights, strict=True)
    rows = [(f"#{feature}", dictionary.label_of(feature) or "-", f"{weight:g}") for feature, weight in pairs]
    rows += [
        ("concept", known.get(id(concept), f"{len(concept.features)} features"), f"{weight:g}")
        for concept, weight in selection.concepts
    ]
    if not rows:
        return "Nothing is selected."
    return table(("feature", "label", "weight"), rows, numbers_from=2)


def concept_table(concept: Concept, dictionary: Dictionary, count: int = 16) -> str:
    """List a concept's first features, each with the largest amounts by which it rises and falls."""
    rows = []
    for number, feature in enumerate(concept.features[:count]):
        amount = concept.amount[:, number]
        rows.append(
            (
                f"#{feature}",
                dictionary.label_of(feature) or "-",
                f"{float(amount.max().clamp(min=0)):.2f}",
                f"{float(amount.min().clamp(max=0)):.2f}",
            )
        )
    return table(("feature", "label", "rises by up to", "falls by up to"), rows, numbers_from=2)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int) -> str:
    """Format a header and rows of cells as aligned columns; columns from `numbers_from` on align right.

    >>> print(table(("feature", "peak"), [("#7", "0.5")], numbers_from=1))
    | feature | peak |
    | ------- | ---: |
    | #7      |  0.5 |
    """
    columns = [
        _column([cell.replace("|", "\\|") for cell in column], right=number >= numbers_from)
        for number, column in enumerate(zip(header, *rows, strict=True))
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def _column(cells: list[str], *, right: bool) -> list[str]:
    """Pad the cells of a column to one width and insert Markdown's rule under the first cell."""
    size = max(len(cell) for cell in cells)
    head, *body = [cell.rjust(size) if right else cell.ljust(size) for cell in cells]
    rule = "-" * (size - 1) + ":" if right else "-" * size
    return [head, rule, *body]
