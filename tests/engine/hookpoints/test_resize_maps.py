"""Maps and masks between the sizes of images and of grids of tokens."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio.hookpoints.mask_on_grid import mask_on_grid
from comfy_revelio.hookpoints.resize_maps import maps_on_grid, resize_maps


def test_maps_keep_their_position_when_enlarged() -> None:
    maps = torch.zeros(1, 2, 4)
    maps[0, 1, 3] = 1.0
    large = resize_maps(maps, (20, 40))[0]
    assert large.shape == (20, 40)
    assert large[19, 39] == 1 and large[:5].max() == 0 and large[:, :25].max() == 0


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
def test_each_map_is_resized_as_if_alone(mode) -> None:
    maps = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    for layout in (maps, maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        together = resize_maps(layout, (4, 9), mode=mode)
        for number, alone in enumerate(maps):
            assert torch.equal(together[number], resize_maps(alone[None], (4, 9), mode=mode)[0])


def test_maps_on_a_grid_are_by_token_and_keep_their_mean() -> None:
    maps = torch.rand(2, 8, 12, generator=torch.Generator().manual_seed(1)).half()
    tokens = maps_on_grid(maps, (4, 6))
    assert tokens.shape == (24, 2) and tokens.dtype == torch.float32
    assert torch.allclose(tokens.mean(0), maps.float().mean((1, 2)), atol=0.03)
    assert torch.equal(maps_on_grid(maps, (8, 12)), maps.float().flatten(1).T)


def test_a_mask_covers_tokens_by_area_in_every_frame_and_repeats_over_items() -> None:
    mask = torch.zeros(2, 6, 6)
    mask[0, :3, :3] = 1.0
    mask[1, :, 3:] = 0.5
    shares = mask_on_grid(mask, (2, 2, 2), [1, 0, 3])
    assert shares.tolist() == [[0, 0.5, 0, 0.5] * 2, [1, 0, 0, 0] * 2, [0, 0.5, 0, 0.5] * 2]
