"""Concepts from images with and without: what carries the change is found, with place and amount."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis import concept_between, concept_of_runs
from comfy_revelio.analysis.image_kinds import kind_reader
from comfy_revelio.dictionary import Activation, Dictionary
from comfy_revelio.dictionary.concept import image_kinds
from comfy_revelio.trace import Frame, RunRecorder, Trace

HEIGHT, WIDTH, D = 4, 6, 16


@pytest.fixture
def sae() -> Dictionary:
    """Features are the axes of the space: the code of an activation is its positive part."""
    eye, zero = torch.eye(D), torch.zeros(D)
    return Dictionary(eye, zero, eye, zero, zero, Activation("topk_relu", D))


def _pair(items: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """With the concept feature 3 fires on the left, 7 moves from right to left, 5 fires as well without."""
    without = torch.rand(items, HEIGHT, WIDTH, D, generator=torch.Generator().manual_seed(seed)) * 0.1
    without[..., 3] = without[..., 7] = 0
    without[..., 3:, 7] = 2.0
    without[..., 5] = 4.0
    with_it = without.clone()
    with_it[..., :3, 3] = 3.0
    with_it[..., 7] = without[..., 7].flip(-1)
    return with_it, without


def test_what_changes_is_found_with_its_place(sae) -> None:
    found = concept_between(sae, *zip(_pair(3, 0), _pair(2, 1), strict=True), count=3)
    assert found.features[:2] == (3, 7) and found.amount.shape == (1, 3, HEIGHT, WIDTH)
    left = torch.zeros(HEIGHT, WIDTH)
    left[:, :3] = 1
    assert torch.allclose(found.amount[0, 0], 3 * left, atol=1e-4)
    assert torch.allclose(found.share[0, 0], left, atol=1e-3)
    assert torch.allclose(found.amount[0, 1], 2 * left - 2 * (1 - left), atol=1e-4)
    assert torch.allclose(found.share[0, 1], left, atol=1e-3)


def test_the_mean_is_over_images_however_they_come(sae) -> None:
    (first, _), (second, without) = _pair(3, 0), _pair(2, 1)
    parts = concept_between(sae, [first, second], [without], count=2)
    whole = concept_between(sae, [torch.cat([first, second])], iter([without[:1], without[1:]]), count=2)
    assert parts.features == whole.features
    assert torch.allclose(parts.amount, whole.amount, atol=1e-6)
    assert torch.allclose(parts.share, whole.share, atol=1e-6)


def test_sides_that_cannot_be_compared_are_refused(sae) -> None:
    with_it, without = _pair(2, 0)
    with pytest.raises(RevelioError, match="at least one of each"):
        concept_between(sae, [with_it], [])
    with pytest.raises(RevelioError, match=r"\[4, 6\] and \[4, 5\]"):
        concept_between(sae, [with_it], [without[:, :, :5]])


def test_fine_grids_are_averaged(sae) -> None:
    """Maps of a concept have at most 16 cells a side, each the mean of what it covers."""
    with_it = torch.zeros(1, 32, 48, D)
    with_it[:, :, :24, 3] = 2.0
    with_it[:, ::2, :24, 3] = 4.0
    found = concept_between(sae, [with_it], [torch.zeros(1, 32, 48, D)], count=1)
    left = torch.zeros(16, 16)
    left[:, :8] = 3.0
    assert found.features == (3,) and torch.allclose(found.amount[0, 0], left, atol=1e-5)


def test_each_kind_of_picture_has_maps_of_its_own(sae) -> None:
    """Bright images wear it on the left, dark ones on the right; a reader distinguishes the two."""
    dark, bright = (torch.rand(60, HEIGHT, WIDTH, D) * 0.1 + level for level in (0.0, 2.0))
    with_dark, with_bright = dark.clone(), bright.clone()
    with_dark[..., 3:, 3] += 1.0
    with_bright[..., :3, 3] += 4.0
    pooled = torch.cat([dark, bright, with_dark, with_bright]).mean(dim=(1, 2))
    kinds = torch.tensor([0, 1, 0, 1]).repeat_interleave(60)
    reader = kind_reader(pooled, kinds)
    assert torch.equal(image_kinds(pooled, reader), kinds)
    found = concept_between(
        sae, [with_dark, with_bright], [torch.cat([dark, bright])], reader=reader, count=1
    )
    one, other = found.amount[:, 0]
    assert float(one[:, 3:].mean()) > 3 * float(one[:, :3].abs().mean())
    assert float(other[:, :3].mean()) > 3 * float(other[:, 3:].abs().mean())
    assert torch.equal(found.reader, reader)


def _run(sae: Dictionary, maps: list[torch.Tensor], *, hook_point: str = "middle_block.1") -> Trace:
    """An image recorded at each of some steps."""
    recorder = RunRecorder(len(maps), [float(len(maps) - step) for step in range(len(maps) + 1)])
    for step, one in enumerate(maps):
        codes = sae.encode(one.flatten(1, 2))
        recorder.add(Frame(hook_point, step, 0, 1.0, 1.0, "cond", tuple(one.shape[1:3]), codes))
    return recorder.finish({hook_point: sae})


def test_a_concept_of_two_runs_is_that_of_their_activations(sae) -> None:
    """Over images and steps, on a grid that is averaged to 16 cells a side."""
    sae.hook_point = "middle_block.1"
    big = [[part.repeat(1, 6, 8, 1) for part in _pair(2, seed)] for seed in (0, 1)]  # 24 x 48
    found, place = concept_of_runs(sae, *(_run(sae, list(side)) for side in zip(*big, strict=True)), count=4)
    wanted = concept_between(sae, *zip(*big, strict=True), count=4)
    assert place == "middle_block.1" and found.features[:2] == wanted.features[:2] == (3, 7)
    assert found.amount.shape == (1, 4, 16, 16) and found.reader.shape == (1, D + 1)
    assert torch.allclose(found.amount[:, :2].mean((2, 3)), wanted.amount[:, :2].mean((2, 3)), atol=0.05)
    fine = [_pair(2, seed) for seed in (0, 1)]  # 4 x 6: nothing is averaged
    found, _ = concept_of_runs(sae, *(_run(sae, list(side)) for side in zip(*fine, strict=True)), count=4)
    wanted = concept_between(sae, *zip(*fine, strict=True), count=4)
    assert found.features == wanted.features
    assert torch.allclose(found.amount, wanted.amount, atol=1e-5)
    assert torch.allclose(found.share, wanted.share, atol=1e-5)


def test_runs_that_cannot_be_compared_are_refused(sae) -> None:
    sae.hook_point = "middle_block.1"
    with_it, without = (_run(sae, [side]) for side in _pair(2, 0))
    with pytest.raises(RevelioError, match="two runs do not differ"):
        concept_of_runs(sae, with_it, with_it)
    with pytest.raises(RevelioError, match="4 x 6 and 4 x 5"):
        concept_of_runs(sae, with_it, _run(sae, [_pair(2, 0)[1][:, :, :5]]))
    other = Dictionary(
        torch.eye(D), torch.zeros(D), torch.eye(D), torch.zeros(D), torch.zeros(D), Activation("topk_relu", 4)
    )
    other.hook_point = "output_blocks.4.1"
    with pytest.raises(RevelioError, match=r"of output_blocks\.4\.1\) recorded nothing.*middle_block\.1"):
        concept_of_runs(other, with_it, without)
    elsewhere = _run(other, [_pair(2, 0)[1]], hook_point="output_blocks.4.1")
    with pytest.raises(RevelioError, match=r"no record of middle_block\.1"):
        concept_of_runs(sae, with_it, elsewhere)
    with pytest.raises(RevelioError, match="trace is empty"):
        concept_of_runs(sae, RunRecorder(1, [1.0, 0.0]).finish({}), without)


def test_steps_of_other_sizes_and_runs_of_other_lengths(sae) -> None:
    """Some nodes shrink the first steps: each is laid on the cells of the smallest."""
    sae.hook_point = "middle_block.1"
    with_it, without = torch.zeros(1, 4, 4, D), torch.zeros(1, 4, 4, D)
    with_it[:, :2, :, 3] = 2.0
    long_with, long_without = (
        _run(sae, [side, side.repeat_interleave(2, 1).repeat_interleave(2, 2)]) for side in (with_it, without)
    )
    found, _ = concept_of_runs(sae, long_with, long_without, count=1)
    top = torch.zeros(4, 4)
    top[:2] = 2.0
    assert found.features == (3,) and torch.allclose(found.amount[0, 0], top, atol=1e-5)
    with pytest.raises(RevelioError, match="have 1 and 2 steps"):
        concept_of_runs(sae, _run(sae, [with_it]), long_without)
