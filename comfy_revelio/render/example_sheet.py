"""The features of an index with what they fire on: a figure and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import RevelioError
from .canvas import Canvas
from .colours import QUIET_TEXT, TEXT
from .lettering import fitted, font, line_height, number
from .overlay import resized
from .table import table

if TYPE_CHECKING:
    from ..analysis.index import FeatureIndex

_MARGIN = 22
_GAP = 6
_CROP = 72
_NAMES = 220
_MOST_ACROSS = 8
_MOST_ROWS = 16


def example_sheet(index: FeatureIndex, features: list[int] | None = None, *, title: str = "") -> Tensor:
    """A row for each feature: its label and the crops that it fires on most. [H, W, 3] float32 in 0..1.

    features: None takes the surest labels, each label once, and the features that peak highest where there
    are no labels. Raises RevelioError when there is nothing to show.
    """
    rows = _surest(index)[:_MOST_ROWS] if features is None else features
    if index.crops is None or not rows:
        raise RevelioError("This index has no crops to show; build it with pictures.")
    across = min(_MOST_ACROSS, max(len(index.value[index.examples(feature)]) for feature in rows))
    heading, bold, note = font(21, bold=True), font(15, bold=True), font(13)
    top = _MARGIN + line_height(heading) + line_height(note) + 14
    width = 2 * _MARGIN + _NAMES + max(1, across) * (_CROP + _GAP)
    canvas = Canvas((width, top + len(rows) * (_CROP + _GAP) + _MARGIN - _GAP))
    canvas.text(title or f"What features fire on · {index.hook_point}", (_MARGIN, _MARGIN - 3), heading, TEXT)
    about = f"{index.items} pictures; strongest on the left, each crop from another picture"
    canvas.text(fitted(about, note, width - 2 * _MARGIN), (_MARGIN, _MARGIN + 28), note, QUIET_TEXT)
    for row, feature in enumerate(rows):
        y = top + row * (_CROP + _GAP)
        label = index.labels.get(feature)
        name = label.text if label else f"#{feature}"
        canvas.text(fitted(name, bold, _NAMES - 12), (_MARGIN, y + 6), bold, TEXT)
        quiet = [f"#{feature}"] if label else []
        if label and label.score is not None:
            quiet.append(f"score {number(label.score)}")
        quiet.append(f"peak {number(float(index.peak[feature]))}")
        canvas.text(fitted(" · ".join(quiet), note, _NAMES - 12), (_MARGIN, y + 30), note, QUIET_TEXT)
        for column, crop in enumerate(index.crops[index.examples(feature)][:across]):
            pixels = resized(crop.to(torch.float32) / 255, _CROP, _CROP)
            canvas.picture(pixels, (_MARGIN + _NAMES + column * (_CROP + _GAP), y), framed=True)
    return canvas.pixels()


def label_table(index: FeatureIndex, most: int = 40) -> str:
    """The surest labels as aligned text that is also Markdown."""
    if not index.labels:
        return "No feature has a label: no word tells its pictures from the others."
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
    """Features with examples: the best of each label first, then by their peak."""
    best: dict[str, int] = {}
    for feature in sorted(index.labels, key=lambda f: (-(index.labels[f].score or 0.0), f)):
        best.setdefault(index.labels[feature].text, feature)
    others = index.peak.argsort(descending=True, stable=True).tolist()
    ranked = list(dict.fromkeys([*best.values(), *(f for f in others if f not in index.labels)]))
    return [f for f in ranked if index.starts[f + 1] > index.starts[f]]
