import pytest
import torch

from comfy_revelio.render.heat import Scale, backdrop, draw_scale, overlay, resize_image, ticks

FULL = Scale(1.0, 0.9)


def test_zero_shows_the_backdrop_and_more_is_lighter():
    behind = backdrop(torch.rand(6, 8, 3), (6, 8))
    values = torch.zeros(1, 6, 8)
    assert torch.equal(overlay(behind, values, FULL)[0], behind)
    values[0, 2, 3], values[0, 4, 4] = 0.5, 1.0
    plain = torch.full((6, 8, 3), 0.3)
    cells = overlay(plain, values, FULL)[0].sum(-1)
    assert cells[4, 4] > cells[2, 3] > cells[0, 0]


def test_no_opacity_draws_no_heat():
    behind = torch.rand(4, 4, 3)
    assert torch.allclose(overlay(behind, torch.ones(1, 4, 4), Scale(1.0, 0.0))[0], behind)


def test_heat_is_lighter_than_a_white_image_behind_it():
    white = backdrop(torch.ones(1, 1, 3), (1, 1))
    assert overlay(white, torch.ones(1, 1, 1), FULL).mean() > white.mean() + 0.2


def test_lines_of_the_image_show_through_full_heat():
    image = torch.ones(1, 2, 3)
    image[0, 1] = 0
    line = overlay(backdrop(image, (1, 2)), torch.ones(1, 1, 2), FULL)[0, 0].mean(-1)
    assert line[0] - line[1] > 0.15


def test_resizing_stays_in_range():
    sharp = (torch.arange(64).view(8, 8, 1) % 2).float().expand(8, 8, 3)
    for size in ((31, 31), (3, 5), (8, 8)):
        out = resize_image(sharp, *size)
        assert out.shape == (*size, 3) and out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize(("bottom", "top"), [(0, 10.03), (0, 0.0203), (-4.2, 4.2), (0, 1e-9), (0, 123456)])
def test_ticks_hold_both_ends_and_few_round_values(bottom, top):
    values = ticks(bottom, top)
    assert values[:2] == [top, bottom]
    assert all(bottom <= value <= top * 1.0001 for value in values) and 4 <= len(values) <= 9


def test_the_scale_says_what_its_top_is():
    class Notes:
        def __init__(self):
            self.texts = []

        def image(self, *_, **__): ...
        def path(self, *_): ...
        def text(self, text, *_, **__):
            self.texts.append(text)

    notes = Notes()
    draw_scale(notes, (0, 40), 300, Scale(7.37, 0.9))
    assert {"activation", "7.37", "0", "2", "4", "6"} <= set(notes.texts)
    notes = Notes()
    draw_scale(notes, (0, 40), 300, Scale(3.0, 0.9, signed=True))
    assert {"3", "−3", "0"} <= set(notes.texts)
