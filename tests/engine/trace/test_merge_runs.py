"""Several runs as one batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Codes
from comfy_revelio.trace import Trace
from comfy_revelio.trace.merge_runs import as_one_batch


def test_items_follow_each_other(trace: Trace) -> None:
    first = replace(trace, frames=tuple(replace(f, codes=f.codes[:1]) for f in trace.frames))
    both = as_one_batch([first, trace])
    assert both.batch_size == 3 and both.hook_points == trace.hook_points
    assert len(both.frames) == len(trace.frames)
    for name in trace.hook_points:
        for role in ("cond", "uncond"):
            maps = [
                one.feature_map(name, 3, item=i, role=role) for one, i in ((both, 0), (both, 2), (trace, 1))
            ]
            assert torch.equal(maps[0], first.feature_map(name, 3, role=role))
            assert torch.equal(maps[1], maps[2])
    assert as_one_batch([trace]) is trace


def test_codes_of_unlike_width_are_filled_up(trace: Trace) -> None:
    def wider(codes: Codes) -> Codes:
        padded = (functional.pad(tensor, (0, 2)) for tensor in (codes.indices, codes.values))
        return Codes(*padded, codes.n_features)

    other = replace(trace, frames=tuple(replace(f, codes=wider(f.codes)) for f in trace.frames))
    both = as_one_batch([trace, other])
    name = trace.hook_points[0]
    assert torch.equal(both.feature_map(name, 3, item=0), both.feature_map(name, 3, item=2))


def test_unlike_runs_are_refused(trace: Trace) -> None:
    for other in (
        replace(trace, sigmas=(1.0, 0.0)),
        replace(trace, frames=trace.frames[:-1]),
        replace(trace, frames=(*trace.frames[:-1], replace(trace.frames[-1], grid=(10, 6)))),
    ):
        with pytest.raises(RevelioError, match="unlike"):
            as_one_batch([trace, other])
    with pytest.raises(RevelioError, match="no runs"):
        as_one_batch([])
