"""The figures' colours: one heat scale whose lightness rises evenly, and the neutral dark theme around it."""

from __future__ import annotations

import torch
from torch import Tensor

RGB = tuple[int, int, int]

BACKGROUND: RGB = (0x16, 0x18, 0x1D)
FRAME: RGB = (0x3A, 0x3E, 0x48)
TEXT: RGB = (0xF2, 0xF3, 0xF5)
QUIET_TEXT: RGB = (0x9D, 0xA3, 0xAE)
ACCENT: RGB = (0xFF, 0xC4, 0x5E)

# (position, sRGB). Positions are the anchors' own CIE lightness, rescaled to 0..1, so that equal steps of
# value look like equal steps of brightness. The low end is a visible violet and not black: over a dimmed
# picture a black low end would look like shadow.
_HEAT = (
    (0.000, (44, 26, 120)),
    (0.120, (98, 22, 152)),
    (0.254, (158, 30, 148)),
    (0.388, (208, 58, 112)),
    (0.537, (238, 106, 70)),
    (0.697, (250, 160, 48)),
    (0.858, (250, 212, 76)),
    (1.000, (252, 250, 190)),
)
# The same idea in blue, for dictionaries whose features can also be negative.
_COLD = (
    (0.000, (20, 34, 92)),
    (0.211, (28, 72, 150)),
    (0.423, (34, 118, 190)),
    (0.631, (64, 166, 212)),
    (0.827, (130, 208, 228)),
    (1.000, (206, 240, 244)),
)


def heat_colour(values: Tensor) -> Tensor:
    """Colours of values in 0..1 (violet to pale yellow); -1..0 runs through blue, for signed features.

    values: [...] any float tensor; what lies outside -1..1 takes the end colour, NaN the colour of 0.
    Returns [..., 3] float32 in 0..1 on the same device.
    """
    values = torch.nan_to_num(values.float(), nan=0.0).clamp(-1.0, 1.0)
    return torch.where((values < 0)[..., None], _ramp(-values, _COLD), _ramp(values, _HEAT))


def _ramp(values: Tensor, anchors: tuple[tuple[float, RGB], ...]) -> Tensor:
    """Piecewise linear colours. values: [...] in 0..1 (negative counts as 0). Returns [..., 3]."""
    positions = torch.tensor([position for position, _ in anchors], device=values.device)
    colours = torch.tensor([colour for _, colour in anchors], device=values.device) / 255
    values = values.clamp(0.0, 1.0).contiguous()
    upper = torch.searchsorted(positions, values).clamp(1, len(anchors) - 1)
    share = (values - positions[upper - 1]) / (positions[upper] - positions[upper - 1])
    return torch.lerp(colours[upper - 1], colours[upper], share[..., None])
