"""Which features tell two sides apart, against plain loops over dense codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.analysis import find_features
from comfy_revelio.analysis.contrast import Spread, effect_size
from comfy_revelio.trace import RunRecorder, Trace

GRIDS = {"m": (3, 5), "up": (6, 4)}
SIGMAS = (3.0, 2.0, 1.0, 0.0)


def _trace(
    saes, items: int, seed: int, plant: tuple[str, int, int] | None = None, steps: int = 3, cells: int = 1
) -> Trace:
    """Random tokens; a planted (hook point, feature, step) fires in the first `cells` tokens of each item."""
    g = torch.Generator().manual_seed(seed)
    recorder = RunRecorder(steps, SIGMAS)
    for step in range(steps):
        for name, grid in GRIDS.items():
            x = torch.randn(items, math.prod(grid), 12, generator=g)
            if plant is not None and plant[0] == name and plant[2] == step:
                x[:, :cells] += 4 * saes[name].W_enc[plant[1]]
            recorder.add(name, step, 0, 3.0 - step, 1.0, "cond", grid, saes[name].encode(x))
    return recorder.finish(saes)


@pytest.fixture
def saes(make_dictionary) -> dict:
    return {"m": make_dictionary(labels={"glasses": [11]}), "up": make_dictionary(seed=3)}


def _expected(high: Tensor, low: Tensor) -> Tensor:
    """The formula of the module on samples [m, n] of two sides."""
    both = torch.cat([high, low])
    within = ((high - high.mean(0)) ** 2).sum(0) + ((low - low.mean(0)) ** 2).sum(0)
    pooled = (within / (len(both) - 2)).sqrt() if len(both) > 2 else torch.zeros(())
    fires = (both != 0).any(0)
    typical = both.var(0)[fires].mean().sqrt()
    return (high.mean(0) - low.mean(0)) / (pooled + typical)


@pytest.mark.parametrize("counts", [(20, 9), (2, 2), (1, 1), (1, 5)])
def test_two_runs_of_any_number_of_images(saes, counts: tuple[int, int]) -> None:
    high, low = (_trace(saes, n, seed) for seed, n in enumerate(counts))
    found = find_features(high, low)
    for name in GRIDS:
        for row, step in enumerate(found.effects[name].steps):
            sides = [
                trace.steps(name)[step].codes.dense().double().amax(1).clamp(min=0) for trace in (high, low)
            ]
            assert torch.allclose(found.effects[name].effect[row].double(), _expected(*sides), atol=1e-5)


def test_the_best_place_step_and_feature_are_found(saes) -> None:
    found = find_features(_trace(saes, 4, 1, ("m", 11, 1)), _trace(saes, 6, 2))
    best, *others = found.best(5)
    assert (best.hook_point, best.feature, best.label, best.step) == ("m", 11, "glasses", 1)
    assert best.effect > 1.5 * others[0].effect
    assert best.mean_with > best.mean_without
    assert [one.effect for one in others] == sorted((one.effect for one in others), reverse=True)
    assert len({(one.hook_point, one.feature) for one in found.best(40)}) == 40
    assert {one.hook_point for one in found.best(3, "up")} == {"up"}


def test_a_feature_that_fires_in_both_is_not_found(saes) -> None:
    found = find_features(_trace(saes, 4, 1, ("m", 11, 1)), _trace(saes, 4, 2, ("m", 11, 1)))
    assert found.best(1)[0].feature != 11 or found.best(1)[0].step != 1


def test_inside_a_mask_against_outside(saes) -> None:
    trace = _trace(saes, 2, 5, ("m", 11, 2), cells=5)  # the top row of the grid of 3 by 5
    mask = torch.zeros(1, 30, 50)
    mask[:, :10] = 1
    found = find_features(trace, mask=mask)
    assert (found.best(1)[0].feature, found.best(1)[0].step) == (11, 2)
    tokens = trace.steps("m")[2].codes.dense().double()
    expected = _expected(tokens[:, :5].flatten(0, 1), tokens[:, 5:].flatten(0, 1))
    assert torch.allclose(found.effects["m"].effect[2].double(), expected, atol=1e-5)
    assert not torch.allclose(find_features(trace, mask=1 - mask).effects["m"].effect[2], expected.float())


def test_cells_on_the_edge_of_a_mask_count_by_their_area(saes) -> None:
    trace = _trace(saes, 2, 5)
    mask = torch.zeros(2, 6, 5)
    mask[:, 0] = 1  # half of each cell of the top row
    codes = trace.steps("m")[0].codes
    inside, outside = Spread(40), Spread(40)
    dense = codes.dense().double().reshape(-1, 40)
    weights = torch.tensor([0.5] * 5 + [0.0] * 10).repeat(2)
    inside.add_tokens(codes, weights.reshape(2, 15))
    outside.add_tokens(codes, 1 - weights.reshape(2, 15))
    assert inside.weight == 5.0
    assert torch.allclose(inside.mean, (weights.double() @ dense) / 5)
    expected = effect_size(inside, outside)
    assert torch.allclose(find_features(trace, mask=mask).effects["m"].effect[0], expected, atol=1e-6)


def test_two_runs_inside_a_mask(saes) -> None:
    """What differs outside the mask does not count."""
    with_, without = _trace(saes, 3, 1, ("m", 11, 1), cells=2), _trace(saes, 3, 2)
    mask = torch.zeros(3, 5)
    mask[2, 4] = 1
    assert find_features(with_, without).best(1)[0].feature == 11
    looked = find_features(with_, without, mask=mask)
    assert looked.best(1)[0].feature != 11
    mask[0, :2] = 1
    assert find_features(with_, without, mask=mask).best(1)[0].feature == 11


def test_masks_of_a_batch_belong_to_its_images(saes) -> None:
    trace = _trace(saes, 2, 5)
    masks = torch.zeros(2, 3, 5)
    masks[0, 0], masks[1, 2] = 1, 1
    both = find_features(trace, mask=masks).effects["m"].effect
    assert not torch.allclose(both, find_features(trace, mask=masks.flip(0)).effects["m"].effect)


def test_the_rest_of_some_samples() -> None:
    values = torch.rand(10, 4).double()
    everything, part, rest = Spread(4), Spread(4), Spread(4)
    everything.add(values)
    part.add(values[:3])
    rest.add(values[3:])
    assert torch.allclose(everything.without(part).scatter, rest.scatter)
    assert everything.without(part).weight == 7


def test_what_cannot_be_compared_is_refused(saes, make_dictionary) -> None:
    trace = _trace(saes, 2, 1)
    other = {"m": make_dictionary(n=30), "up": saes["up"]}
    elsewhere = RunRecorder(3, SIGMAS)
    elsewhere.add("mid", 0, 0, 3.0, 1.0, "cond", (3, 5), saes["m"].encode(torch.randn(1, 15, 12)))
    for make, message in (
        (lambda: find_features(trace), "nothing to compare with"),
        (lambda: find_features(trace, _trace(saes, 2, 2, steps=2)), "3 and 2 steps"),
        (lambda: find_features(trace, elsewhere.finish({"mid": saes["m"]})), "no hook point in common"),
        (lambda: find_features(trace, RunRecorder(3, SIGMAS).finish({})), "is empty"),
        (lambda: find_features(trace, _trace(other, 2, 2)), "different SAEs"),
        (lambda: find_features(trace, mask=torch.ones(4, 4)), "all white or all black"),
        (lambda: find_features(trace, mask=torch.zeros(4, 4)), "all white or all black"),
        (lambda: find_features(trace, trace, role="uncond"), "role 'uncond'"),
        (lambda: find_features(trace, trace).best(3, "down"), "was not compared"),
    ):
        with pytest.raises(RevelioError, match=message) as problem:
            make()
        assert "\n" not in str(problem.value)
