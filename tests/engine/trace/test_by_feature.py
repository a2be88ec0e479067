"""Codes sorted by feature, against the trace's own maps."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Codes
from comfy_revelio.trace import Trace
from comfy_revelio.trace.by_feature import LEVELS, by_feature


def _map_of(packed: dict[str, torch.Tensor], feature: int, step: int, tokens: int) -> torch.Tensor:
    """As the page reads it: one slice of entries, spread over the tokens."""
    at = feature * len(packed["steps"]) + step
    part = slice(int(packed["starts"][at]), int(packed["starts"][at + 1]))
    places = packed["tokens"][part].long() & (0xFFFF if packed["tokens"].dtype == torch.int16 else -1)
    out = torch.zeros(tokens)
    out[places] = packed["values"][part].float() * packed["scale"][feature]
    return out


@pytest.mark.parametrize("hook_point", ["middle_block.1", "output_blocks.1.1"])
@pytest.mark.parametrize("item", [0, 1])
def test_every_map_comes_back(trace: Trace, hook_point: str, item: int) -> None:
    packed = by_feature(trace.steps(hook_point, "uncond"), item)
    assert packed["steps"].tolist() == [0, 1, 2]
    for feature in range(40):
        expected = trace.feature_map(hook_point, feature, item=item, role="uncond").flatten(1)
        found = torch.stack([_map_of(packed, feature, step, expected.shape[1]) for step in range(3)])
        assert torch.equal(found != 0, expected != 0)
        assert (found - expected).abs().max() <= expected.abs().max() / LEVELS


def test_tokens_beyond_the_sign_of_16_bits(trace: Trace) -> None:
    """A grid of 250 x 250: token numbers above 32,767 use the sign bit; 300 x 300 needs 32 bits."""
    frame = trace.steps("middle_block.1")[0]
    for side, kind in ((250, torch.int16), (300, torch.int32)):
        indices = torch.zeros(1, side * side, 1, dtype=torch.int64)
        values = torch.zeros(1, side * side, 1)
        values[0, -1] = 3.0
        large = dataclasses.replace(frame, grid=(side, side), codes=Codes(indices, values, 40))
        packed = by_feature([large], 0)
        assert packed["tokens"].dtype == kind
        found = _map_of(packed, 0, 0, side * side)
        assert (found.nonzero().flatten().tolist(), float(found[-1])) == (
            [side * side - 1],
            pytest.approx(3.0),
        )


def test_negative_values_keep_their_sign(trace: Trace) -> None:
    frame = trace.steps("middle_block.1")[0]
    codes = Codes(torch.tensor([[[1]] * 15]), torch.tensor([[[-2.0]] * 15]), 40)
    packed = by_feature([dataclasses.replace(frame, codes=codes)], 0)
    assert _map_of(packed, 1, 0, 15).tolist() == pytest.approx([-2.0] * 15)


def test_steps_of_two_sizes_are_refused(trace: Trace) -> None:
    with pytest.raises(RevelioError, match="differ in size"):
        by_feature([*trace.steps("middle_block.1"), *trace.steps("output_blocks.1.1")], 0)


def test_traces_of_one_run_are_joined(trace: Trace) -> None:
    def only(name: str) -> Trace:
        frames = tuple(frame for frame in trace.frames if frame.hook_point == name)
        return Trace(frames, {name: trace.dictionaries[name]}, trace.total_steps, trace.sigmas)

    middle, up = only("middle_block.1"), only("output_blocks.1.1")
    both = middle.joined(up)
    assert both.hook_points == trace.hook_points
    assert torch.equal(both.feature_map("output_blocks.1.1", 3), trace.feature_map("output_blocks.1.1", 3))
    with pytest.raises(RevelioError, match=r"Both traces recorded middle_block\.1"):
        middle.joined(middle)
    with pytest.raises(RevelioError, match="different runs"):
        middle.joined(Trace(up.frames, up.dictionaries, 3, (1.0, 0.5, 0.2, 0.0)))
