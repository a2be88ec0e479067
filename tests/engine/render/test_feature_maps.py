from dataclasses import replace

import pytest
import torch

from comfy_revelio.errors import RevelioError
from comfy_revelio.render import feature_maps
from comfy_revelio.render.colour_scale import draw_scale, ticks
from comfy_revelio.render.feature_maps import evenly_spread
from comfy_revelio.render.figure_layout import cell_size, plan
from comfy_revelio.render.lettering import font, width
from comfy_revelio.render.names import place_name
from comfy_revelio.steering import Selection

HOOK_POINT = "middle_block.1"
GREY = torch.full((128, 128, 3), 0.5)


def heat(sheet):
    """Colourfulness per pixel: 0 for the grey theme, large for heat."""
    return sheet.amax(-1) - sheet.amin(-1)


def cells(sheet, trace, rows, columns, picture=True):
    """The heat cells of a figure without labels, cut out: {(row, column): [h, w, 3]}, found by the layout."""
    height, wide = cell_size(trace.frames[0].grid, (128, 128) if picture else None)
    layout = plan(
        title="-",
        notes=["-", "-"],
        rows=rows,
        columns=columns,
        cell=(height, wide),
        label_width=84,
        head_width=width("finished image", font(13, True)) if picture else 1,
    )
    drop = sheet.shape[0] - layout.size[1]  # wrapped notes push everything down
    out = {}
    for row in range(rows):
        for column in range(columns):
            x, y = layout.corner(row, column)
            out[row, column] = sheet[y + drop : y + drop + height, x : x + wide]
    return out


def test_heat_lies_where_the_feature_fires(traced):
    trace = traced({5: (1, 6, 4.0)})
    cut = cells(feature_maps(trace, [5], hook_point=HOOK_POINT, image=GREY), trace, 1, 5)
    for step in range(1, 5):
        warm = heat(cut[0, step])
        assert warm[24, 104] > 0.3
        assert warm[80:].max() < 0.02 and warm[:, :64].max() < 0.02


def test_the_first_column_is_the_untouched_picture(traced):
    trace = traced({5: (1, 6, 4.0)})
    picture = torch.rand(128, 128, 3)
    cut = cells(feature_maps(trace, [5], hook_point=HOOK_POINT, image=picture), trace, 1, 5)
    assert (cut[0, 0] - picture).abs().max() < 0.003


def test_all_rows_share_one_scale(traced):
    trace = traced({5: (4, 4, 8.0), 6: (4, 4, 2.0)})
    cut = cells(feature_maps(trace, [5, 6], hook_point=HOOK_POINT, image=GREY), trace, 2, 5)
    strong, weak = cut[0, 1].mean(-1).max(), cut[1, 1].mean(-1).max()
    assert strong > weak + 0.2


def test_a_silent_feature_shows_the_dimmed_picture_only(traced):
    trace = traced({5: (4, 4, 8.0)})
    cut = cells(feature_maps(trace, [40], hook_point=HOOK_POINT, image=GREY), trace, 1, 5)
    assert heat(cut[0, 3]).max() < 0.02


def test_more_activity_is_hotter_in_the_chosen_batch_item(traced):
    trace = traced({5: (1, 1, 1.0), 6: (6, 6, 3.0)}, batch=2)
    first = feature_maps(trace, [5, 6], hook_point=HOOK_POINT, image=GREY, item=0)
    second = feature_maps(trace, [5, 6], hook_point=HOOK_POINT, image=GREY, item=1)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("grid", [(8, 8), (6, 12), (12, 6), (2, 16), (16, 2)])
def test_cells_have_the_aspect_of_the_recorded_grid(grid):
    height, wide = cell_size(grid, None)
    assert max(height, wide) == 160
    assert height * grid[1] == pytest.approx(wide * grid[0], abs=grid[0] + grid[1])


@pytest.mark.parametrize("grid", [(6, 12), (12, 6), (16, 2), (1, 1)])
def test_any_grid_and_any_picture_is_drawn(traced, grid):
    trace = traced({5: (0, 0, 1.0)}, grid=grid)
    for picture in (None, torch.rand(50, 300, 3), torch.rand(1, 64, 64, 4)):
        sheet = feature_maps(trace, [5], hook_point=HOOK_POINT, image=picture)
        assert sheet.ndim == 3 and sheet.shape[-1] == 3 and sheet.dtype == torch.float32
        assert sheet.min() >= 0 and sheet.max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("count", [1, 12])
def test_any_number_of_steps_and_features(traced, steps, count):
    trace = traced({number: (number // 8, number % 8, 1.0 + number) for number in range(12)}, steps=steps)
    sheet = feature_maps(trace, list(range(count)), hook_point=HOOK_POINT, image=GREY)
    assert sheet.shape[0] >= count * 128
    assert sheet.shape[1] <= (min(steps, 8) + 1) * 140 + 360


def test_a_video_shows_the_strongest_of_its_frames_or_one(traced):
    """The same dots on a grid of 8 x 8, taken as 4 frames of 4 x 4: the dot lies in frame 1 alone."""
    still = traced({5: (2, 1, 4.0)})  # token 17: frame 1, row 0, column 1
    frames = tuple(replace(frame, grid=(4, 4, 4)) for frame in still.frames)
    video = replace(still, frames=frames)
    flat = traced({5: (0, 1, 4.0)}, grid=(4, 4))
    expected = cells(feature_maps(flat, [5], hook_point=HOOK_POINT, image=GREY), flat, 1, 5)
    for frame in (None, 1):
        sheet = feature_maps(video, [5], hook_point=HOOK_POINT, image=GREY, frame=frame)
        assert torch.equal(cells(sheet, flat, 1, 5)[0, 1], expected[0, 1])
    silent = feature_maps(video, [5], hook_point=HOOK_POINT, image=GREY, frame=2)
    assert not torch.equal(cells(silent, flat, 1, 5)[0, 1], expected[0, 1])


def test_a_selection_is_taken_like_a_list(traced):
    trace = traced({5: (1, 6, 4.0), 9: (2, 2, 1.0)})
    chosen = feature_maps(trace, Selection((5, 9)), hook_point=HOOK_POINT)
    assert torch.equal(chosen, feature_maps(trace, [5, 9], hook_point=HOOK_POINT))


def test_labels_widen_their_column_up_to_a_limit(traced):
    sizes = []
    for label in ("hat", "a hat with a feather", "an endless label " * 20):
        trace = traced({5: (1, 6, 4.0)}, labels={label: [5]})
        sizes.append(feature_maps(trace, [5], hook_point=HOOK_POINT).shape[1])
    assert sizes[0] < sizes[1] < sizes[2] < sizes[0] + 130


def test_the_role_is_read_from_its_own_frames(traced):
    trace = traced({5: (1, 6, 4.0)}, roles=("cond", "uncond"))
    cond = feature_maps(trace, [5], hook_point=HOOK_POINT)
    uncond = feature_maps(trace, [5], hook_point=HOOK_POINT, role="uncond")
    assert cond.shape == uncond.shape and not torch.equal(cond, uncond)  # the heading names the role


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [(20, 4, [0, 6, 13, 19]), (3, 8, [0, 1, 2]), (1, 8, [0]), (20, 1, [19]), (50, 2, [0, 49])],
)
def test_steps_are_spread_from_first_to_last(count, wanted, chosen):
    assert evenly_spread(count, wanted) == chosen


def test_places_have_names_for_people():
    assert place_name("middle_block.1") == "middle block (middle_block.1)"
    assert place_name("output_blocks.3.1") == "up block 3 (output_blocks.3.1)"
    assert place_name("double_blocks.18") == "double block 18, image (double_blocks.18)"
    assert place_name("noise_refiner.1") == "noise_refiner.1"


@pytest.mark.parametrize(("bottom", "top"), [(0, 10.03), (0, 0.0203), (-4.2, 4.2), (0, 1e-9), (0, 123456)])
def test_ticks_hold_both_ends_and_few_round_values(bottom, top):
    values = ticks(bottom, top)
    assert values[:2] == [top, bottom]
    assert all(bottom <= value <= top * 1.0001 for value in values) and 4 <= len(values) <= 9


def test_the_scale_says_what_its_top_is():
    class Notes:
        def __init__(self):
            self.texts = []

        def picture(self, *_, **__): ...
        def tick(self, *_): ...
        def text(self, text, *_, **__):
            self.texts.append(text)

    notes = Notes()
    draw_scale(notes, (0, 40), 300, 7.37, 0.9, signed=False)
    assert {"activation", "7.37", "0", "2", "4", "6"} <= set(notes.texts)
    notes = Notes()
    draw_scale(notes, (0, 40), 300, 3.0, 0.9, signed=True)
    assert {"3", "−3", "0"} <= set(notes.texts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": []}, "at least one feature"),
        ({"features": [64]}, "63"),
        ({"features": [-1]}, "63"),
        ({"hook_point": "middle_block.7"}, "middle_block.1"),
        ({"role": "uncond"}, "cond"),
        ({"item": 3}, "3"),
        ({"columns": 0}, "1 or more"),
        ({"opacity": 1.5}, "from 0 to 1"),
        ({"opacity": float("nan")}, "from 0 to 1"),
        ({"image": torch.zeros(3, 8, 8, 3)}, "no picture in colour"),
    ],
)
def test_bad_input_is_a_sentence(traced, change, words):
    request = {"features": [5], "hook_point": HOOK_POINT, **change}
    features = request.pop("features")
    with pytest.raises(RevelioError, match=words):
        feature_maps(traced({5: (1, 6, 4.0)}), features, **request)
