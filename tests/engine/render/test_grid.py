import pytest
import torch

from comfy_revelio.errors import RevelioError
from comfy_revelio.render import grid
from comfy_revelio.render.grid import grid_of_batches

RED = torch.tensor([1.0, 0.0, 0.0])


def red(height, width):
    return RED.expand(height, width, 3)


def red_pixels(sheet):
    return (sheet - RED).abs().amax(-1) < 0.02


def test_every_image_is_there_whole():
    sheet = grid([red(256, 256)] * 3, ["strength −2", "0", "strength +2"], title="before and after")
    assert red_pixels(sheet).sum() == 3 * 256 * 256
    assert sheet.dtype == torch.float32 and sheet.min() >= 0 and sheet.max() <= 1


def test_a_long_row_breaks_evenly():
    one_row = grid([red(160, 160)] * 5, [""] * 5)
    two_rows = grid([red(160, 160)] * 10, [""] * 10)
    assert one_row.shape[1] == two_rows.shape[1] and two_rows.shape[0] > one_row.shape[0] + 160


def test_columns_can_be_chosen():
    sheet = grid([red(160, 160)] * 4, ["a"] * 4, columns=2)
    assert 320 < sheet.shape[1] < 480


def test_small_images_grow_by_whole_factors_and_keep_their_aspect():
    marks = red_pixels(grid([red(32, 64)], [""]))
    rows, columns = marks.any(1).sum(), marks.any(0).sum()
    assert (rows, columns) == (96, 192)


def test_large_images_are_reduced():
    assert grid([red(1024, 2048)], ["large"]).shape[1] < 600


def test_unequal_images_share_equal_cells():
    sheet = grid([red(200, 300), red(300, 200)], ["wide", "tall"])
    assert red_pixels(sheet).sum() == 2 * 200 * 300


def test_captions_do_not_leave_their_cell():
    words = "a caption that is far too long for the little room that there is under one small image " * 3
    sheet = grid([torch.zeros(160, 160, 3)] * 2, [words, ""])
    background = sheet[0, 0]
    right = sheet[190:, 20 + 160 + 14 :]
    assert (right - background).abs().max() < 0.01


@pytest.mark.parametrize(
    ("images", "labels", "columns", "words"),
    [
        ([], [], None, "0 images"),
        ([red(8, 8)], [], None, "one label for each"),
        ([red(8, 8)], ["a"], 0, "1 or more"),
        ([torch.zeros(8, 8)], ["a"], None, "8 x 8"),
        ([torch.zeros(2, 8, 8, 3)], ["a"], None, "must be an RGB or RGBA image"),
    ],
)
def test_bad_input_is_a_sentence(images, labels, columns, words):
    with pytest.raises(RevelioError, match=words):
        grid(images, labels, columns=columns)


def test_lists_of_batches_are_unrolled():
    batches = [torch.zeros(2, 160, 160, 3), RED.expand(1, 160, 160, 3)]
    sheet = grid_of_batches(batches, columns=3, title="three")
    assert red_pixels(sheet).sum() == 160 * 160
    assert torch.equal(sheet, grid([*batches[0], *batches[1]], ["1", "2", "3"], columns=3, title="three"))
    shared = grid_of_batches(batches, ["a", "b"])
    assert torch.equal(shared, grid([*batches[0], *batches[1]], ["a", "a", "b"]))
    with pytest.raises(RevelioError, match="3 images and 4 labels"):
        grid_of_batches(batches, ["a", "b", "c", "d"])
