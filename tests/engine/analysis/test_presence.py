"""Where a concept is, and which features are alike."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis.presence import concept_presence, nearest_features
from comfy_revelio.dictionary import Codes, Concept, Dictionary
from comfy_revelio.dictionary.concept import single_kind_reader
from comfy_revelio.trace import Frame, RunRecorder

GRID = (2, 3)


def _frame(values: torch.Tensor) -> Frame:
    """Two features with the values [2 items, 6 tokens, 2] at a step."""
    indices = torch.tensor([4, 7]).expand(values.shape)
    return Frame("middle_block.1", 0, 0, 1.0, 9.0, "cond", GRID, Codes(indices, values, 10))


def _dictionary(
    make_dictionary, amount: torch.Tensor, share: torch.Tensor, reader: torch.Tensor
) -> Dictionary:
    concept = Concept((4, 7), amount, share, reader)
    return make_dictionary(n=10, d=12, concepts={"glasses": concept})


def test_the_usual_amount_at_the_usual_place_is_1(make_dictionary) -> None:
    """Feature 4 belongs to the token 1 with an amount of 2; feature 7 is taken away everywhere."""
    amount = torch.zeros(1, 2, *GRID)
    amount[0, 0, 0, 1], amount[0, 1] = 2.0, -1.0
    share = torch.tensor([1.0, 0.5])[:, None, None].expand(1, 2, *GRID).clone()
    dictionary = _dictionary(make_dictionary, amount, share, single_kind_reader(12))
    values = torch.zeros(2, 6, 2)
    values[1, :, 0] = 2.0  # of the second item alone, and everywhere
    values[1, :, 1] = 5.0  # what a concept takes away shows nothing of it
    frames = [_frame(values * factor) for factor in (1.0, 0.25, -1.0)]
    maps = concept_presence(frames, dictionary, item=1)
    assert maps.shape == (1, 3, *GRID)
    assert maps[0, :, 0, 1].tolist() == [1.0, 0.5, 0.0]
    maps[0, :, 0, 1] = 0
    assert not maps.any()
    assert not concept_presence(frames, dictionary, item=0).any()


def test_every_step_has_the_maps_of_its_kind(make_dictionary) -> None:
    """Two kinds, distinguished by the mean of the decoded codes: left in one, right in the other."""
    amount = torch.zeros(2, 2, *GRID)
    amount[0, 0, :, 0], amount[1, 0, :, 2] = 1.0, 1.0
    dictionary = _dictionary(
        make_dictionary, amount, torch.ones(2, 2, *GRID), single_kind_reader(12).repeat(2, 1)
    )
    weak, strong = (_frame(torch.full((1, 6, 2), value)) for value in (1.0, 3.0))
    means = [dictionary.decode(frame.codes[0]).mean(0) for frame in (weak, strong)]
    towards = means[1] - means[0]
    reader = torch.zeros(2, 13)
    reader[1, :-1], reader[1, -1] = towards, -float(towards @ (means[0] + means[1])) / 2
    dictionary = _dictionary(make_dictionary, amount, torch.ones(2, 2, *GRID), reader)
    maps = concept_presence([weak, strong], dictionary, 0)[0]
    assert maps[0].tolist() == [[1.0, 0.0, 0.0]] * 2
    assert torch.allclose(maps[1].square(), torch.tensor([[0.0, 0.0, 3.0]] * 2))


def test_kinds_are_read_at_the_scale_of_the_activations(make_dictionary) -> None:
    """Of a dictionary that takes the mean off, two images may differ by nothing else."""
    reader = torch.zeros(2, 13)
    reader[1, :-1] = 1.0  # the second kind is that of images above 0
    amount = torch.zeros(2, 2, *GRID)
    amount[0, 0, :, 0], amount[1, 0, :, 2] = 1.0, 1.0
    concept = Concept((4, 7), amount, torch.ones(2, 2, *GRID), reader)
    dictionary = make_dictionary(n=10, d=12, k=10, normalise="layernorm", concepts={"glasses": concept})
    dictionary.b_enc[:] = 1.0  # so that every feature fires somewhere
    x = torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(1))
    recorder = RunRecorder(2, (2.0, 1.0, 0.0))
    for step, level in enumerate((-50.0, 50.0)):
        recorder.add("m", step, 0, 1.0, 1.0, "cond", GRID, dictionary.encode(x + level))
    low, high = concept_presence(recorder.finish({"m": dictionary}).steps("m"), dictionary, 0)[0]
    assert low[:, 0].any() and not low[:, 1:].any()
    assert high[:, 2].any() and not high[:, :2].any()


def test_maps_are_fitted_to_the_grid(make_dictionary) -> None:
    dictionary = _dictionary(
        make_dictionary, torch.ones(1, 2, 4, 6), torch.ones(1, 2, 4, 6), single_kind_reader(12)
    )
    values = torch.rand(1, 6, 2)
    maps = concept_presence([_frame(values)], dictionary, 0)
    assert torch.allclose(maps[0, 0].flatten().square(), values[0].mean(-1))


def test_nearest_by_direction(make_dictionary) -> None:
    dictionary = make_dictionary(n=40, d=12)
    dictionary.W_dec[31] = dictionary.W_dec[5] * 3  # longer, but of the same direction
    dictionary.W_dec[8] = 0
    found = nearest_features(dictionary, 5, count=4)
    assert found[0] == (31, pytest.approx(1.0))
    cosines = torch.nn.functional.cosine_similarity(dictionary.W_dec, dictionary.W_dec[5][None])
    cosines[5] = -1
    order = cosines.argsort(descending=True)[:4].tolist()
    assert [number for number, _ in found] == order
    assert 8 not in dict(nearest_features(dictionary, 5, count=39))
    with pytest.raises(RevelioError, match="Feature 40 does not exist"):
        nearest_features(dictionary, 40)
