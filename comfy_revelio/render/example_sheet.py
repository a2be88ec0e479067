"""Show what the features of an index fire on, as a figure, and their labels, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import RevelioError
from .canvas import GAP, MARGIN, NOTE, titled_canvas
from .colours import QUIET_TEXT, TEXT
from .heat import resize_image
from .lettering import fitted, font, number
from .table import table

if TYPE_CHECKING:
    from ..analysis.index import FeatureIndex

_CROP = 72
_NAMES = 220
_MOST_ACROSS = 8
_MOST_ROWS = 16


def example_sheet(index: FeatureIndex, features: list[int] | None = None, *, title: str = "") -> Tensor:
    """Draw a row for each feature: its label and the crops on which it fires most. [H, W, 3] float32 in 0..1.

    features: None chooses at most 16: first the best feature of each label, highest scores first, and then
    features without a label, highest peaks first.
    """
    rows = _surest(index)[:_MOST_ROWS] if features is None else features
    if index.crops is None or not rows:
        raise RevelioError("This index has no crops to show; build it with images.")
    across = min(_MOST_ACROSS, max(len(index.value[index.examples(feature)]) for feature in rows))
    bold = font(15, bold=True)
    canvas, top = titled_canvas(
        title or f"What features fire on · {index.hook_point}",
        [f"{index.items} images; strongest on the left, each crop from another image"],
        2 * MARGIN + _NAMES + max(1, across) * (_CROP + GAP),
        14 + len(rows) * (_CROP + GAP) + MARGIN - GAP,
    )
    for row, feature in enumerate(rows):
        y = top + 14 + row * (_CROP + GAP)
        label = index.labels.get(feature)
        name = label.text if label else f"#{feature}"
        canvas.text(fitted(name, bold, _NAMES - 12), (MARGIN, y + 6), bold, TEXT)
        quiet = [f"#{feature}"] if label else []
        if label and label.score is not None:
            quiet.append(f"score {number(label.score)}")
        quiet.append(f"peak {number(float(index.peak[feature]))}")
        canvas.text(fitted(" · ".join(quiet), NOTE, _NAMES - 12), (MARGIN, y + 30), NOTE, QUIET_TEXT)
        for column, crop in enumerate(index.crops[index.examples(feature)][:across]):
            pixels = resize_image(crop.to(torch.float32) / 255, _CROP, _CROP)
            canvas.image(pixels, (MARGIN + _NAMES + column * (_CROP + GAP), y), framed=True)
    return canvas.pixels()


def label_table(index: FeatureIndex, most: int = 40) -> str:
    """List the labels with the highest scores as aligned text that is also Markdown."""
    if not index.labels:
        return "No feature has a label: no word describes a feature well enough."
    chosen = sorted(index.labels, key=lambda f: (-(index.labels[f].score or 0.0), f))[:most]
    rows = [
        (
            f"#{feature}",
            index.labels[feature].text,
            "-" if (score := index.labels[feature].score) is None else f"{score:.2f}",
            f"{float(index.peak[feature]):.3g}",
            f"{100 * float(index.rate[feature]):.1f} %",
        )
        for feature in chosen
    ]
    return table(("feature", "label", "score", "peak", "share of tokens"), rows, numbers_from=2)


def _surest(index: FeatureIndex) -> list[int]:
    """Rank the features that have examples: first the best feature of each label, then the rest by peak."""
    best: dict[str, int] = {}
    for feature in sorted(index.labels, key=lambda f: (-(index.labels[f].score or 0.0), f)):
        best.setdefault(index.labels[feature].text, feature)
    others = index.peak.argsort(descending=True, stable=True).tolist()
    ranked = list(dict.fromkeys([*best.values(), *(f for f in others if f not in index.labels)]))
    return [f for f in ranked if index.starts[f + 1] > index.starts[f]]
