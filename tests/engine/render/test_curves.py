"""The curves: where they run, in what colours, and how two runs are told apart."""

from itertools import combinations, pairwise

import pytest
import torch

from comfy_revelio.errors import RevelioError
from comfy_revelio.render import feature_timeline
from comfy_revelio.render.canvas import Canvas
from comfy_revelio.render.colours import BACKGROUND, CURVES
from comfy_revelio.render.curves import _apart, colour_of
from comfy_revelio.trace import Reading
from comfy_revelio.trace.timeline import timeline

HOOK_POINT = "middle_block.1"
# Machado, Oliveira & Fernandes (2009), severity 1: what people without one kind of cone see, in linear RGB.
SEEN = {
    "all cones": torch.eye(3),
    "protanopia": torch.tensor(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": torch.tensor(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": torch.tensor(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def reading(trace, **more):
    return Reading(trace, HOOK_POINT, **more)


def drawn(sheet, place, *, right=700):
    """Pixels in a curve's own colour, left of the names."""
    return ((sheet[:, :right] - torch.tensor(colour_of(place)) / 255).abs().amax(-1) < 0.02).nonzero()


def linear(colours):
    colours = torch.tensor(colours) / 255
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* (D65) of linear RGB [n, 3]."""
    xyz = rgb.clamp(0, 1) @ torch.tensor(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    t = xyz / torch.tensor([0.9505, 1.0, 1.089])
    f = torch.where(t > 0.008856, t ** (1 / 3), 7.787 * t + 16 / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


@pytest.mark.parametrize("kind", SEEN)
def test_colours_are_told_apart_with_any_eyes(kind):
    colours = lab(linear(CURVES) @ SEEN[kind].T)
    for first, second in combinations(range(len(CURVES)), 2):
        assert (colours[first] - colours[second]).norm() > 11, (kind, first, second)


def test_colours_stand_out_from_the_sheet():
    """Contrast of at least 4.5 to 1, as the WCAG ask of text: names are written in these colours."""
    light = linear([*CURVES, BACKGROUND]) @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert ((light[:-1] + 0.05) / (light[-1] + 0.05)).min() >= 4.5


def test_a_stronger_feature_has_the_higher_curve(traced):
    one = reading(traced({5: (1, 1, 8.0), 6: (4, 4, 2.0)}))
    sheet = feature_timeline(one, [timeline(one, [5, 6])], "peak")
    strong, weak = drawn(sheet, 0)[:, 0].float().mean(), drawn(sheet, 1)[:, 0].float().mean()
    assert strong < weak - 100


def test_a_curve_runs_over_all_steps_at_its_values(traced):
    """Constant values are a level line over the whole panel, with zero at its lower edge."""
    one = reading(traced({5: (1, 1, 8.0), 6: (4, 4, 4.0)}, steps=10))
    sheet = feature_timeline(one, [timeline(one, [5, 6, 40])], "peak")
    heights = []
    for place in range(3):
        points = drawn(sheet, place, right=1200 if place else 700)
        row = points[:, 0].mode().values
        columns = points[points[:, 0] == row][:, 1]
        assert columns.max() - columns.min() > 500
        heights.append(float(row))
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=3)


def test_the_second_run_is_dashed(traced):
    """Half as many pixels as solid, all over the panel; and the first run stays as it is."""
    one = reading(traced({5: (1, 1, 8.0)}))
    other = reading(traced({5: (1, 1, 4.0)}))
    lines = [timeline(one, [5]), timeline(other, [5])]
    alone = drawn(feature_timeline(one, lines[:1], "peak"), 0)
    both = drawn(feature_timeline(one, lines, "peak"), 0)
    rows = both[:, 0].unique()
    dashed = both[both[:, 0] > rows.float().mean()]
    solid = both[both[:, 0] < rows.float().mean()]
    assert abs(len(solid) - len(alone)) < 0.1 * len(alone)
    assert 0.3 * len(solid) < len(dashed) < 0.85 * len(solid)
    assert dashed[:, 1].max() - dashed[:, 1].min() > 400


@pytest.mark.parametrize("count", [1, 12, 20])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_any_number_of_features_and_steps(traced, count, steps):
    dots = {number: (number // 8, number % 8, 1.0 + number) for number in range(count)}
    one = reading(traced(dots, steps=steps, labels={"a name without end " * 5: [0]}))
    for measure in ("mean", "peak", "share"):
        sheet = feature_timeline(one, [timeline(one, list(range(count)))], measure)
        assert sheet.ndim == 3 and sheet.shape[1] < 1200
        assert len(drawn(sheet, min(count, 12) - 1)) > 0


def test_negative_values_run_below_zero(traced):
    one = reading(traced({5: (1, 1, -8.0), 6: (2, 2, 8.0)}))
    sheet = feature_timeline(one, [timeline(one, [5, 6])], "peak")
    assert drawn(sheet, 0)[:, 0].float().mean() > drawn(sheet, 1)[:, 0].float().mean() + 200


def test_names_do_not_overlap():
    for wanted in ([5.0, 5, 5, 5], [0, 370, 375, 380], [200] * 12):
        placed = _apart(wanted, 20, 380)
        assert all(b - a >= 20 - 1e-6 for a, b in pairwise(placed))
        assert placed[-1] <= 380 and placed[0] >= -0.01


def test_a_dashed_line_has_gaps_of_the_length_asked_for():
    canvas = Canvas((100, 20))
    with canvas.smooth((0, 0), (100, 20)) as pen:
        pen.line([(0, 10), (30, 10), (100, 10)], (255, 255, 255), 2, dash=(6, 4))
    lit = canvas.pixels()[10, :, 0] > 0.5
    assert 0.5 < lit.float().mean() < 0.72
    assert int((lit[1:] & ~lit[:-1]).sum()) in (9, 10)


def test_what_cannot_be_drawn_is_a_sentence(traced):
    one = reading(traced({5: (1, 1, 8.0)}))
    line = timeline(one, [5])
    with pytest.raises(RevelioError, match="mean, peak, share"):
        feature_timeline(one, [line], "median")
    for runs in ([], [line] * 3):
        with pytest.raises(RevelioError, match="one run or two"):
            feature_timeline(one, runs)
