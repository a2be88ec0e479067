import torch

from comfy_revelio.render.overlay import backdrop, overlay, resized


def test_zero_shows_the_backdrop_and_more_is_lighter():
    behind = backdrop(torch.rand(6, 8, 3))
    values = torch.zeros(1, 6, 8)
    assert torch.equal(overlay(behind, values, 0.9)[0], behind)
    values[0, 2, 3], values[0, 4, 4] = 0.5, 1.0
    plain = torch.full((6, 8, 3), 0.3)
    cells = overlay(plain, values, 0.9)[0].sum(-1)
    assert cells[4, 4] > cells[2, 3] > cells[0, 0]


def test_no_opacity_draws_no_heat():
    behind = torch.rand(4, 4, 3)
    assert torch.allclose(overlay(behind, torch.ones(1, 4, 4), 0.0)[0], behind)


def test_heat_is_lighter_than_a_white_picture_behind_it():
    white = backdrop(torch.ones(1, 1, 3))
    assert overlay(white, torch.ones(1, 1, 1), 0.9).mean() > white.mean() + 0.2


def test_lines_of_the_picture_show_through_full_heat():
    picture = torch.ones(1, 2, 3)
    picture[0, 1] = 0
    line = overlay(backdrop(picture), torch.ones(1, 1, 2), 0.9)[0, 0].mean(-1)
    assert line[0] - line[1] > 0.15


def test_resizing_stays_in_range():
    sharp = (torch.arange(64).view(8, 8, 1) % 2).float().expand(8, 8, 3)
    for size in ((31, 31), (3, 5), (8, 8)):
        out = resized(sharp, *size)
        assert out.shape == (*size, 3) and out.min() >= 0 and out.max() <= 1
