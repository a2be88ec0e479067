"""The views of feature maps and the masks: where heat is, what colour it has, what cannot be drawn."""

import dataclasses

import pytest
import torch

from comfy_revelio.errors import RevelioError
from comfy_revelio.render import VIEWS, feature_maps, feature_masks
from comfy_revelio.trace import Reading

HOOK_POINT = "middle_block.1"
GREY = torch.full((128, 96, 3), 0.5)


def colourful(pixels):
    """Colourfulness per pixel: near 0 for the grey theme, large for heat."""
    return pixels.amax(-1) - pixels.amin(-1)


def reading(trace, **more):
    return Reading(trace, HOOK_POINT, **more)


@pytest.mark.parametrize("grid", [(8, 8), (4, 12), (12, 4)])
def test_an_overlay_per_feature_as_large_as_the_image(traced, grid):
    trace = traced({5: (1, 2, 4.0), 9: (3, 1, 0.5), 11: (0, 0, 1.0)}, grid=grid)
    out = feature_maps(reading(trace), [5, 9], "overlay", image=GREY)
    assert out.shape == (2, 128, 96, 3)
    for (row, column), image in zip(((1, 2), (3, 1)), out, strict=True):
        warm = colourful(image)
        y, x = int((row + 0.5) * 128 / grid[0]), int((column + 0.5) * 96 / grid[1])
        assert warm[y, x] > 0.2  # each on its own scale, so that the weak one shows as well
        assert warm[-1, -1] < 0.05


def test_an_overlay_tells_what_it_shows_where_there_is_room(traced):
    trace = traced({5: (1, 2, 4.0)}, labels={"glasses": [5]})
    small, large = (
        feature_maps(reading(trace), [5], "overlay", image=torch.full((side, side, 3), 0.5))[0]
        for side in (128, 512)
    )
    assert large[-4:, :6].max() < 0.1 < large[:-60].min()  # the darkened edge under the words
    assert small[-4:, :6].min() > 0.1  # untouched


@pytest.mark.parametrize("view", ["side by side", "mean"])
def test_the_mean_is_over_all_steps_and_not_over_the_shown_ones(traced, view):
    """A feature that fires at one of the four steps only is a quarter as strong as its peak."""
    trace = traced({5: (1, 2, 4.0)})
    silent = dataclasses.replace(trace.frames[0].codes, values=torch.zeros_like(trace.frames[0].codes.values))
    once = dataclasses.replace(
        trace, frames=(trace.frames[0], *(dataclasses.replace(f, codes=silent) for f in trace.frames[1:]))
    )
    weak = traced({5: (1, 2, 1.0)})
    assert torch.allclose(
        feature_maps(reading(once), [5], view, image=GREY)[0],
        feature_maps(reading(weak), [5], view, image=GREY)[0],
    )


def test_side_by_side_shows_the_image_untouched(traced):
    image = torch.rand(256, 256, 3)
    sheet = feature_maps(reading(traced({5: (1, 2, 4.0)})), [5], "side by side", image=image)[0]
    rows = (sheet[..., None, :] * 255).round()
    corner = (rows[:, :, 0] == (image[0, 0] * 255).round()).all(-1).nonzero()
    assert any(
        torch.allclose(sheet[y : y + 256, x : x + 256], image, atol=1 / 254)
        for y, x in corner.tolist()
        if y + 256 <= sheet.shape[0] and x + 256 <= sheet.shape[1]
    )


def test_more_is_orange_and_less_is_blue(traced):
    first = traced({5: (1, 2, 4.0), 7: (6, 6, 1.0)}, grid=(8, 8))
    second = traced({5: (1, 2, 1.0), 7: (6, 6, 3.0)}, grid=(8, 8))
    one = reading(first)
    sheet = feature_maps(one, [5, 7], "difference", image=GREY, second=one.of_second(second))[0]
    less, more = sheet[: sheet.shape[0] - 135], sheet[-135:]  # rows of 128 pixels

    def blue(part):
        return ((part[..., 2] - part[..., 0]) > 0.3).sum()

    def orange(part):
        return ((part[..., 0] - part[..., 2]) > 0.3).sum()

    cut = slice(120, -110)  # without the labels and the scale
    assert blue(less[:, cut]) > 100 and orange(less[:, cut]) == 0
    assert orange(more[:, cut]) > 100 and blue(more[:, cut]) == 0


def test_equal_runs_have_no_colour(traced):
    one = reading(traced({5: (1, 2, 4.0)}))
    sheet = feature_maps(one, [5], "difference", image=GREY, second=one.of_second(one.trace))[0]
    assert colourful(sheet[:, 120:-110]).max() < 0.08


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("grid", [(1, 1), (2, 9), (9, 2)])
def test_every_view_of_any_grid_with_and_without_an_image(traced, view, grid):
    one = reading(traced({5: (0, 0, 1.0), 40: (0, 0, 0.5)}, grid=grid, steps=2))
    for image in (None, torch.rand(40, 90, 3)):
        out = feature_maps(one, [5, 40, 63], view, image=image, second=one, second_image=image)
        assert out.shape[0] == (3 if view == "overlay" else 1)
        assert out.shape[-1] == 3 and out.dtype == torch.float32
        assert out.min() >= 0 and out.max() <= 1


def test_a_view_of_one_frame_of_a_video(traced):
    """A grid of 8 x 8 taken as 4 frames of 4 x 4: token 17 is frame 1, row 0, column 1."""
    still = traced({5: (2, 1, 4.0)})
    video = dataclasses.replace(
        still, frames=tuple(dataclasses.replace(frame, grid=(4, 4, 4)) for frame in still.frames)
    )
    masks = [feature_masks(reading(video, frame=frame), [5], size=(64, 64)) for frame in (None, 1, 2)]
    assert torch.equal(masks[0], masks[1]) and masks[1].max() == 1
    assert masks[2].max() == 0


class TestMasks:
    def test_one_per_feature_from_0_to_1_in_the_size_of_the_image(self, traced):
        trace = traced({5: (1, 2, 4.0), 9: (6, 7, 0.01)}, batch=2)
        masks = feature_masks(reading(trace, item=1), [9, 5, 40], size=(80, 160))
        assert masks.shape == (3, 80, 160) and masks.dtype == torch.float32
        assert masks[0].max() == masks[1].max() == 1 and masks.min() == 0
        assert masks[2].max() == 0
        assert masks[1, 15, 50] > 0.9 and masks[0, 65, 150] > 0.9

    def test_of_a_difference(self, traced):
        one = reading(traced({5: (1, 2, 4.0), 9: (6, 6, 1.0)}))
        other = one.of_second(traced({5: (6, 6, 4.0), 9: (6, 6, 1.0)}))
        moved, same = feature_masks(one, [5, 9], size=(8, 8), second=other)
        assert moved[1, 2] == moved[6, 6] == 1 and moved.sum() == 2
        assert same.max() == 0

    def test_of_negative_values(self, traced):
        masks = feature_masks(reading(traced({5: (1, 2, -4.0)})), [5], size=(8, 8))
        assert masks[0, 1, 2] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"view": "upside down"}, "per step, overlay"),
        ({"view": "difference"}, "second run"),
        ({"features": []}, "at least one feature"),
        ({"features": [64]}, "63"),
        ({"features": [-1]}, "63"),
        ({"hook_point": "middle_block.7"}, "middle_block.1"),
        ({"role": "uncond"}, "cond"),
        ({"item": 3}, "3"),
        ({"columns": 0}, "1 or more"),
        ({"opacity": 2.0}, "from 0 to 1"),
        ({"opacity": float("nan")}, "from 0 to 1"),
        ({"image": torch.zeros(3, 8, 8, 3)}, "must be an RGB or RGBA image"),
        ({"image": torch.zeros(8, 8)}, "must be an RGB or RGBA image"),
    ],
)
def test_bad_input_is_a_sentence(traced, change, words):
    request = {"features": [5], "view": "overlay", **change}
    features, view = request.pop("features"), request.pop("view")
    what = {"hook_point": HOOK_POINT}
    what |= {name: request.pop(name) for name in ("hook_point", "role", "item") if name in request}
    with pytest.raises(RevelioError, match=words):
        feature_maps(Reading(traced({5: (1, 6, 4.0)}), **what), features, view, **request)
