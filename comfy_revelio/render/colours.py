"""The figures' colours: heat scales whose lightness rises evenly, and the neutral dark theme around them."""

from __future__ import annotations

import torch
from torch import Tensor

RGB = tuple[int, int, int]

BACKGROUND: RGB = (0x16, 0x18, 0x1D)
FRAME: RGB = (0x3A, 0x3E, 0x48)
TEXT: RGB = (0xF2, 0xF3, 0xF5)
QUIET_TEXT: RGB = (0x9D, 0xA3, 0xAE)
ACCENT: RGB = (0xFF, 0xC4, 0x5E)

# (position, sRGB). The position of an anchor is its CIE lightness, rescaled to 0..1, so that equal steps of
# value look like equal steps of brightness. The low end is a visible violet, because black over a dimmed
# image would look like a shadow.
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
# The same scale in blue, for negative values: codes of signed dictionaries, and decreases between runs.
_COLD = (
    (0.000, (20, 34, 92)),
    (0.211, (28, 72, 150)),
    (0.423, (34, 118, 190)),
    (0.631, (64, 166, 212)),
    (0.827, (130, 208, 228)),
    (1.000, (206, 240, 244)),
)
# For increases between runs. Colour-blind people can distinguish these colours from _COLD, but not the
# violet end of _HEAT.
_MORE = (
    (0.000, (104, 46, 10)),
    (0.211, (158, 74, 16)),
    (0.423, (206, 104, 26)),
    (0.631, (240, 144, 56)),
    (0.827, (252, 190, 116)),
    (1.000, (255, 230, 188)),
)

# For curves: the colours of Okabe and Ito (2008), "Color Universal Design", made lighter for the dark sheet.
CURVES: tuple[RGB, ...] = (
    (0xE6, 0x9F, 0x00),
    (0x56, 0xB4, 0xE9),
    (0xF4, 0xF4, 0xF4),
    (0xE8, 0x5D, 0x1A),
    (0x00, 0xB0, 0x84),
    (0xD8, 0x8A, 0xB8),
    (0xF0, 0xE4, 0x42),
    (0x5B, 0x7F, 0xF0),
)


def heat_colour(values: Tensor) -> Tensor:
    """Map values to colours: 0..1 from violet to pale yellow; -1..0 in blue, for signed features.

    values: any float tensor [...]; values outside -1..1 get the nearest end colour, NaN the colour of 0.
    Returns [..., 3] float32 in 0..1 on the same device.
    """
    values = torch.nan_to_num(values.float(), nan=0.0).clamp(-1.0, 1.0)
    return torch.where((values < 0)[..., None], _ramp(-values, _COLD), _ramp(values, _HEAT))


def difference_colour(values: Tensor) -> Tensor:
    """Map differences in -1..1 to colours, like `heat_colour`: decreases blue, increases orange, 0 dark."""
    values = torch.nan_to_num(values.float(), nan=0.0).clamp(-1.0, 1.0)
    return torch.where((values < 0)[..., None], _ramp(-values, _COLD), _ramp(values, _MORE))


def _ramp(values: Tensor, anchors: tuple[tuple[float, RGB], ...]) -> Tensor:
    """Interpolate between anchor colours. values: [...] in 0..1 (negative counts as 0). Returns [..., 3]."""
    positions = torch.tensor([position for position, _ in anchors], device=values.device)
    colours = torch.tensor([colour for _, colour in anchors], device=values.device) / 255
    values = values.clamp(0.0, 1.0).contiguous()
    upper = torch.searchsorted(positions, values).clamp(1, len(anchors) - 1)
    share = (values - positions[upper - 1]) / (positions[upper] - positions[upper - 1])
    return torch.lerp(colours[upper - 1], colours[upper], share[..., None])
