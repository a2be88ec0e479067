"""Turn the short text by which a workflow stores a hand-painted region into a mask."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.resize_maps import resize_maps

MOST_SIDE = 512
_UNPAINTED = (64, 64)
_FORM = re.compile(r"(\d{1,3})x(\d{1,3}):(\d{1,6}(?:,\d{1,6})*)")


def parse_painted(text: str) -> Tensor | None:
    """Return the mask that "4x2:1,2,5" describes: float32 [height, width] of 0 and 1; None for empty text.

    The text gives width and height, then the lengths of runs of cells in reading order. Unpainted and painted
    runs alternate; the first run is unpainted.

    >>> parse_painted("4x2:1,2,5").tolist()
    [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    text = text.strip()
    if not text:
        return None
    found = _FORM.fullmatch(text) if len(text) <= 2**20 else None
    if found is None:
        raise RevelioError(
            f"The painted region {text[:40]!r} is broken; clear it in Explorer and paint it again."
        )
    width, height = int(found[1]), int(found[2])
    runs = [int(run) for run in found[3].split(",")]
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE) or sum(runs) != width * height:
        raise RevelioError(
            f"The painted region does not fill its {width} by {height} cells; clear it and paint it again."
        )
    inside = torch.arange(len(runs)) % 2
    return torch.repeat_interleave(inside, torch.tensor(runs)).reshape(height, width).float()


def painted_mask(text: str, size: tuple[int, int] | None = None) -> Tensor:
    """Return a painted region as a mask: float32 [1, height, width] in 0..1; all 1 if nothing was painted.

    size: height and width of the image; None keeps the size at which the region was painted.
    """
    region = parse_painted(text)
    if region is None:
        return torch.ones(1, *(size or _UNPAINTED))
    if size is None:
        return region[None]
    return resize_maps(region[None], size, antialias=True).clamp(0.0, 1.0)
