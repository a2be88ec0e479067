import torch

from comfy_revelio.render import heat_colour


def lightness(colours: torch.Tensor) -> torch.Tensor:
    """CIE L* of sRGB [..., 3]."""
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ torch.tensor([0.2126, 0.7152, 0.0722])
    return 116 * luminance ** (1 / 3) - 16


def test_lightness_rises_evenly_so_that_brighter_means_more():
    steps = lightness(heat_colour(torch.linspace(0, 1, 33))).diff()
    assert (steps > 0).all()
    assert steps.max() < 2.5 * steps.min()


def test_any_shape_and_any_value_gives_colours():
    values = torch.tensor([[-3.0, 0.0, 0.5], [1.0, 7.0, float("nan")]])
    colours = heat_colour(values)
    assert colours.shape == (2, 3, 3) and colours.dtype == torch.float32
    assert colours.isfinite().all() and colours.min() >= 0 and colours.max() <= 1
    assert torch.equal(colours[1, 0], colours[1, 1])
    assert torch.equal(colours[1, 2], colours[0, 1])


def test_negative_values_are_blue_and_positive_ones_are_not():
    cold, hot = heat_colour(torch.tensor([-0.6, 0.6]))
    assert cold.argmax() == 2 and hot.argmax() == 0
