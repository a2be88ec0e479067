"""Maps on coarse cells, brought to the edges of an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from comfy_revelio.analysis import edge_filter
from comfy_revelio.analysis.edge_filter import follow_edges


def scene(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A red disc on blue with a little noise, [H, W, 3], and where the disc is, [H, W]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1.5, 1.5, width), indexing="ij")
    disc = (y - 0.1) ** 2 + (x + 0.2) ** 2 < 0.3
    image = torch.where(disc[..., None], torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.7]))
    return (image + 0.01 * torch.randn(height, width, 3, generator=torch.Generator().manual_seed(1))).clamp(
        0, 1
    ), disc


def coarse(disc: Tensor, cell: int) -> Tensor:
    """The disc as cells see it, spread over the pixels again: [1, H, W]."""
    small = functional.avg_pool2d(disc[None, None].float(), cell)
    return functional.interpolate(small, size=tuple(disc.shape), mode="bicubic")[0].clamp(min=0)


def overlap(maps: Tensor, disc: Tensor) -> float:
    found = maps[0] > 0.5 * maps[0].max()
    return float((found & disc).sum() / (found | disc).sum())


def test_a_coarse_map_gets_the_edges_of_the_image() -> None:
    image, disc = scene(96, 144)
    rough = coarse(disc, 16)
    assert overlap(rough, disc) < 0.9
    assert overlap(follow_edges(rough, image, 24), disc) > 0.97


def test_it_is_the_guided_filter() -> None:
    """Against the paper's equations, window by window, in float64."""
    image, disc = scene(9, 14)
    maps, radius = coarse(disc, 3), 2
    height, width = disc.shape
    slopes, offsets = torch.zeros(height, width, 3).double(), torch.zeros(height, width).double()
    windows = {}
    for row in range(height):
        for column in range(width):
            window = (
                slice(max(0, row - radius), row + radius + 1),
                slice(max(0, column - radius), column + radius + 1),
            )
            windows[row, column] = window
            colours = image[window].reshape(-1, 3).double()
            values = maps[0][window].reshape(-1).double()
            away = colours - colours.mean(0)
            spread = away.T @ away / len(colours) + edge_filter.EPSILON * torch.eye(3).double()
            slopes[row, column] = torch.linalg.solve(spread, away.T @ values / len(colours))
            offsets[row, column] = values.mean() - slopes[row, column] @ colours.mean(0)
    expected = torch.stack(
        [
            slopes[windows[row, column]].mean((0, 1)) @ image[row, column].double()
            + offsets[windows[row, column]].mean()
            for row in range(height)
            for column in range(width)
        ]
    ).view(height, width)
    expected = expected.clamp(min=0) / expected.max()
    assert torch.allclose(follow_edges(maps, image, radius)[0].double(), expected, atol=1e-4)


def test_large_images_are_solved_on_a_smaller_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    image, disc = scene(96, 144)
    rough = coarse(disc, 16)
    monkeypatch.setattr(edge_filter, "LONGEST", 72)
    found = follow_edges(rough, image, 24)
    assert found.shape == rough.shape and overlap(found, disc) > 0.95


def test_flat_images_empty_maps_and_wide_windows() -> None:
    grey = torch.full((20, 31, 3), 0.5)
    maps = torch.stack([torch.zeros(20, 31), torch.ones(20, 31)])
    found = follow_edges(maps, grey, 40)
    assert torch.equal(found[0], maps[0])
    assert torch.allclose(found[1], maps[1])
    assert follow_edges(maps.half(), grey.half(), 3).dtype == torch.float32
