"""Moving pictures: one per step, heat where the feature is at that step, and a file that plays."""

import dataclasses

import pytest
import torch
from PIL import Image

from comfy_revelio.errors import RevelioError
from comfy_revelio.render import feature_animation
from comfy_revelio.render.animation import held, save_webp
from comfy_revelio.render.match_images import image_of
from comfy_revelio.trace import Reading

HOOK_POINT = "middle_block.1"
GREY = torch.full((128, 128, 3), 0.5)


def fading(traced, steps=5):
    """Feature 5 fires at one place, at half its strength less in every step; silent in the last."""
    trace = traced({5: (1, 6, 4.0)}, steps=steps)
    frames = [
        dataclasses.replace(
            frame,
            codes=dataclasses.replace(frame.codes, values=frame.codes.values * (steps - 1 - frame.step)),
        )
        for frame in trace.frames
    ]
    return Reading(dataclasses.replace(trace, frames=tuple(frames)), HOOK_POINT)


def heat(frames):
    """Colourful pixels of each picture below its head and left of the scale."""
    inside = frames[:, 70:-40, 20:-100]
    return ((inside.amax(-1) - inside.amin(-1)) > 0.15).sum((1, 2))


def test_a_picture_for_each_step_with_the_heat_of_that_step(traced):
    frames = feature_animation(fading(traced), [5], image=GREY)
    assert frames.shape[0] == 5 and frames.dtype == torch.float32
    amounts = heat(frames)
    assert (amounts.diff() < 0).all() and amounts[-1] == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 9])
@pytest.mark.parametrize("grid", [(8, 8), (3, 7), (7, 3)])
def test_sizes_are_even_for_any_grid_and_number_of_panels(traced, count, grid):
    dots = {number: (number // 3 % 3, number % 3, 1.0 + number) for number in range(count)}
    trace = traced(dots, grid=grid, steps=2)
    frames = feature_animation(Reading(trace, HOOK_POINT), list(range(count)))
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    assert max(frames.shape[1:3]) < 1300


def test_the_last_picture_is_held():
    frames = torch.rand(3, 4, 6, 3)
    longer = held(frames, fps=4, hold=1.5)
    assert longer.shape[0] == 9
    assert torch.equal(longer[:3], frames) and (longer[3:] == frames[-1]).all()
    assert torch.equal(held(frames, fps=4, hold=0), frames)


@pytest.mark.parametrize("loop", [True, False])
def test_the_file_plays_as_long_as_asked(traced, tmp_path, loop):
    frames = feature_animation(fading(traced), [5], image=GREY)
    file = tmp_path / "moving.webp"
    save_webp(frames, file, fps=5, hold=1.0, loop=loop, notes={0x0110: "prompt:{}"})
    with Image.open(file) as moving:
        assert moving.format == "WEBP" and moving.n_frames == 5
        assert moving.size == (frames.shape[2], frames.shape[1])
        assert moving.info["loop"] == (0 if loop else 1)
        assert moving.getexif()[0x0110] == "prompt:{}"
        durations = []
        for number in range(5):
            moving.seek(number)
            moving.load()
            durations.append(moving.info["duration"])
    assert durations == [200, 200, 200, 200, 1200]


def test_what_cannot_be_shown_is_a_sentence(traced, tmp_path):
    reading = fading(traced)
    with pytest.raises(RevelioError, match="at least one feature"):
        feature_animation(reading, [])
    for rate in (0.0, float("nan")):
        with pytest.raises(RevelioError, match="above 0"):
            save_webp(torch.rand(1, 4, 4, 3), tmp_path / "x.webp", fps=rate, hold=0, loop=True, notes={})


class TestPictureOf:
    def test_of_a_batch(self, traced):
        images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 4, 4, 3)
        trace = traced({5: (1, 6, 4.0)}, batch=3)
        assert image_of(images, Reading(trace, HOOK_POINT, item=2)).mean() == 2
        assert image_of(images[:1], Reading(trace, HOOK_POINT, item=2)).mean() == 0
        assert image_of(None, Reading(trace, HOOK_POINT)) is None
        with pytest.raises(RevelioError, match="from 0 to 1"):
            image_of(images[:2], Reading(trace, HOOK_POINT, item=2))

    @pytest.mark.parametrize(("frame", "item", "seen"), [(0, 0, 0), (3, 0, 12), (1, 0, 4), (None, 1, 19)])
    def test_of_videos_the_frame_at_the_same_share(self, traced, frame, item, seen):
        """Two videos of 13 images each, of which 4 frames were recorded."""
        still = traced({5: (2, 1, 4.0)}, batch=2)
        frames = tuple(dataclasses.replace(one, grid=(4, 4, 4)) for one in still.frames)
        reading = Reading(dataclasses.replace(still, frames=frames), HOOK_POINT, item=item, frame=frame)
        images = torch.arange(26.0).view(26, 1, 1, 1).expand(26, 4, 4, 3)
        assert image_of(images, reading).mean() == seen


def test_words_in_one_row_have_a_scale_too(traced):
    """A trace of a prompt is one row of tokens, lower than the scale's own lettering."""
    reading = fading(traced, steps=1)
    (frame,) = reading.trace.frames
    words = dataclasses.replace(frame, grid=(1, frame.grid[0] * frame.grid[1]))
    frames = feature_animation(
        Reading(dataclasses.replace(reading.trace, frames=(words,)), HOOK_POINT), [5], image=None
    )
    assert frames.shape[0] == 1


@pytest.mark.parametrize("hold", [-1.0, float("nan")])
def test_a_time_to_hold_that_is_none(hold):
    with pytest.raises(RevelioError, match=r"The last step cannot be held for .*; give a number from 0"):
        held(torch.rand(2, 4, 4, 3), fps=4, hold=hold)
