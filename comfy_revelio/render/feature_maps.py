"""The feature map figure: rows of features, columns of denoising steps, heat over the finished picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..steering import Selection
from ..trace import Frame, Reading
from .canvas import checked_image
from .feature_rows import Sheet, check_request, draw_rows, read_row
from .figure_layout import cell_size
from .lettering import number
from .names import facts, place_name

if TYPE_CHECKING:
    from ..trace import Trace

_PICTURE_HEAD = "finished image"


def feature_maps(
    trace: Trace,
    features: Sequence[int] | Selection,
    *,
    hook_point: str,
    image: Tensor | None = None,
    columns: int = 8,
    role: str = "cond",
    item: int = 0,
    opacity: float = 0.9,
    frame: int | None = None,
) -> Tensor:
    """Where features fire at each denoising step, laid over the finished picture.

    features: one row each, in this order. image: [H, W, 3] in 0..1, the picture of this batch item, drawn in
    the aspect of the recorded grid; None draws the bare maps. columns: number of steps shown, spread evenly
    over the recorded ones, always with the first and the last. opacity: of the hottest heat, 0..1; heat
    fades to clear where a feature is silent. frame: of a video; None shows each place at its strongest
    frame. All rows share one colour scale, which is drawn beside them and goes from 0 to their highest value
    at any recorded step.

    Returns [height, width, 3] float32 in 0..1. Raises RevelioError for no features, no columns, an opacity
    outside 0..1, and for what the trace does not hold (hook point, role, item, feature).
    """
    numbers = list(features.features if isinstance(features, Selection) else features)
    check_request(numbers, opacity, columns)
    reading = Reading(trace, hook_point, role, item, frame)
    rows = [read_row(reading, feature) for feature in numbers]
    frames = reading.steps
    shown = evenly_spread(len(frames), columns)
    picture = None if image is None else checked_image(image)
    sheet = Sheet(
        title=f"Feature maps · {place_name(hook_point)}",
        notes=_notes(reading, len(rows), picture is not None),
        plain=[] if picture is None else [(_PICTURE_HEAD, picture)],
        heads=step_heads([frames[i] for i in shown], trace.total_steps),
        behind=picture,
        cell=cell_size(frames[0].grid, None if picture is None else (picture.shape[0], picture.shape[1])),
        opacity=opacity,
    )
    return draw_rows(rows, [row.maps[shown] for row in rows], sheet)


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices of 0..count-1, evenly spread from first to last; one alone is the last."""
    wanted = min(wanted, count)
    if wanted == 1:
        return [count - 1]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def step_heads(frames: Sequence[Frame], total_steps: int) -> list[tuple[str, str]]:
    """The two lines over the column of a step."""
    return [(f"step {taken.step + 1}/{total_steps}", f"σ {number(taken.sigma)}") for taken in frames]


def _notes(reading: Reading, shown: int, over_picture: bool) -> list[str]:
    """Two sentences under the title: what was recorded, and how to read the picture."""
    note = reading.note
    said = [f"{shown} of {note.n_features:,} features", f"at most {note.k} active per token"]
    how = "The brighter a place, the stronger the feature fires there at that step; where it is silent, "
    how += "the finished image shows." if over_picture else "nothing is drawn."
    return [" · ".join(said + facts(reading)), how]
