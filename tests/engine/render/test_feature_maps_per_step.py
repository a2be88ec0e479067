"""The view of feature maps with a column for each step: where heat is and how hot it is."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from comfy_revelio.render import feature_maps
from comfy_revelio.render.canvas import Canvas
from comfy_revelio.trace import Reading

HOOK_POINT = "middle_block.1"
GREY = torch.full((128, 128, 3), 0.5)


def heat(sheet):
    """Colourfulness per pixel: 0 for the grey theme, large for heat."""
    return sheet.amax(-1) - sheet.amin(-1)


def maps(trace, features, *, image=None, columns=8, opacity=0.9, **what):
    reading = Reading(trace, HOOK_POINT, **what)
    return feature_maps(reading, features, image=image, columns=columns, opacity=opacity)[0]


def cells(trace, features, **settings):
    """The cells of a figure, cut out where they were drawn: {(row, column): [h, w, 3]}."""
    placed = []
    draw = Canvas.image

    def noted(self, pixels, at, *, framed=False):
        placed.append((*at, *pixels.shape[:2]))
        draw(self, pixels, at, framed=framed)

    with patch.object(Canvas, "image", noted):
        sheet = maps(trace, features, **settings)
    boxes = placed[:-1]  # the last one is the colour scale
    columns = len(boxes) // len(features)
    return {divmod(n, columns): sheet[y : y + h, x : x + w] for n, (x, y, h, w) in enumerate(boxes)}


def test_heat_is_where_the_feature_fires(traced):
    trace = traced({5: (1, 6, 4.0)})
    cut = cells(trace, [5], image=GREY)
    for step in range(1, 5):
        warm = heat(cut[0, step])
        assert warm[24, 104] > 0.3
        assert warm[80:].max() < 0.02 and warm[:, :64].max() < 0.02


def test_the_first_column_is_the_untouched_image(traced):
    trace = traced({5: (1, 6, 4.0)})
    image = torch.rand(128, 128, 3)
    cut = cells(trace, [5], image=image)
    assert (cut[0, 0] - image).abs().max() < 0.003


def test_all_rows_share_one_scale(traced):
    trace = traced({5: (4, 4, 8.0), 6: (4, 4, 2.0)})
    cut = cells(trace, [5, 6], image=GREY)
    strong, weak = cut[0, 1].mean(-1).max(), cut[1, 1].mean(-1).max()
    assert strong > weak + 0.2


def test_a_silent_feature_shows_the_dimmed_image_only(traced):
    trace = traced({5: (4, 4, 8.0)})
    cut = cells(trace, [40], image=GREY)
    assert heat(cut[0, 3]).max() < 0.02


def test_more_activity_is_hotter_in_the_chosen_batch_item(traced):
    trace = traced({5: (1, 1, 1.0), 6: (6, 6, 3.0)}, batch=2)
    first = maps(trace, [5, 6], image=GREY, item=0)
    second = maps(trace, [5, 6], image=GREY, item=1)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("grid", [(6, 12), (12, 6), (16, 2), (1, 1)])
def test_any_grid_and_any_image_is_drawn(traced, grid):
    trace = traced({5: (0, 0, 1.0)}, grid=grid)
    for image in (None, torch.rand(50, 300, 3), torch.rand(1, 64, 64, 4)):
        sheet = maps(trace, [5], image=image)
        assert sheet.ndim == 3 and sheet.shape[-1] == 3 and sheet.dtype == torch.float32
        assert sheet.min() >= 0 and sheet.max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("count", [1, 12])
def test_any_number_of_steps_and_features(traced, steps, count):
    trace = traced({number: (number // 8, number % 8, 1.0 + number) for number in range(12)}, steps=steps)
    sheet = maps(trace, list(range(count)), image=GREY)
    assert sheet.shape[0] >= count * 128
    assert sheet.shape[1] <= (min(steps, 8) + 1) * 140 + 360


def test_a_video_shows_the_strongest_of_its_frames_or_one(traced):
    """The same dots on a grid of 8 x 8, taken as 4 frames of 4 x 4: the dot lies in frame 1 alone."""
    still = traced({5: (2, 1, 4.0)})  # token 17: frame 1, row 0, column 1
    frames = tuple(replace(frame, grid=(4, 4, 4)) for frame in still.frames)
    video = replace(still, frames=frames)
    flat = traced({5: (0, 1, 4.0)}, grid=(4, 4))
    expected = cells(flat, [5], image=GREY)
    for frame in (None, 1):
        assert torch.equal(cells(video, [5], image=GREY, frame=frame)[0, 1], expected[0, 1])
    assert not torch.equal(cells(video, [5], image=GREY, frame=2)[0, 1], expected[0, 1])


def test_labels_widen_their_column_up_to_a_limit(traced):
    sizes = []
    for label in ("hat", "a hat with a feather", "an endless label " * 20):
        trace = traced({5: (1, 6, 4.0)}, labels={label: [5]})
        sizes.append(maps(trace, [5]).shape[1])
    assert sizes[0] < sizes[1] < sizes[2] < sizes[0] + 130


def test_the_role_is_read_from_its_own_frames(traced):
    trace = traced({5: (1, 6, 4.0)}, roles=("cond", "uncond"))
    cond = maps(trace, [5])
    uncond = maps(trace, [5], role="uncond")
    assert cond.shape == uncond.shape and not torch.equal(cond, uncond)  # the heading names the role
