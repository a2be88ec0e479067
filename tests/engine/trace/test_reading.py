"""Readings of traces, and two of them compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Codes
from comfy_revelio.trace import Frame, Reading, Trace

UP = "output_blocks.1.1"


def changed(trace: Trace, **changes: object) -> Trace:
    return dataclasses.replace(trace, **changes)


def each_frame(trace: Trace, change: object) -> Trace:
    assert callable(change)
    return changed(trace, frames=tuple(change(frame) for frame in trace.frames))


def test_a_reading_is_of_its_place_role_and_item(trace: Trace) -> None:
    reading = Reading(trace, UP, "uncond", 1)
    assert torch.equal(reading.maps(5), trace.feature_map(UP, 5, item=1, role="uncond"))
    assert [frame.role for frame in reading.steps] == ["uncond"] * 3
    for bad in (Reading(trace, "nowhere"), Reading(trace, UP, "cond2"), Reading(trace, UP, item=2)):
        with pytest.raises(RevelioError):
            _ = bad.steps


def test_the_second_run_is_read_at_the_same_item_or_its_only_one(trace: Trace) -> None:
    reading = Reading(trace, UP, "cond", 1)
    assert reading.of_second(trace).item == 1
    single = each_frame(trace, lambda frame: dataclasses.replace(frame, codes=frame.codes[:1]))
    assert reading.of_second(single).item == 0


def test_most_changed_is_by_the_largest_difference_of_each_step(trace: Trace) -> None:
    """Against dense maps: the second run has other codes for half of the tokens, in the other order."""

    def other(frame: Frame) -> Frame:
        values = frame.codes.values.clone()
        values[:, ::2] *= 1.5
        return dataclasses.replace(
            frame, codes=Codes(frame.codes.indices.flip(-1), values.flip(-1), frame.codes.n_features)
        )

    reading = Reading(trace, UP, "cond", 1)
    second = reading.of_second(each_frame(trace, other))
    dense = torch.stack([(second.maps(f) - reading.maps(f)).abs().amax((1, 2)).sum() for f in range(64)])
    found = reading.most_changed(second, 10)
    assert found == dense.argsort(descending=True, stable=True)[:10].tolist()
    assert dense[found[0]] > 0
    assert reading.most_changed(reading) == []


def test_two_runs_must_have_the_same_maps(trace: Trace) -> None:
    reading = Reading(trace, UP)
    elsewhere = changed(trace, frames=tuple(f for f in trace.frames if f.hook_point != UP))
    turned = each_frame(trace, lambda frame: dataclasses.replace(frame, grid=frame.grid[::-1]))
    shorter = changed(trace, frames=tuple(f for f in trace.frames if f.step < 2))
    note = dataclasses.replace(trace.dictionaries[UP], n_features=32)
    notes: Mapping[str, object] = {**trace.dictionaries, UP: note}
    for second, words in (
        (elsewhere, "recorded at middle_block.1, the first at output_blocks.1.1"),
        (turned, "different sizes, 6 x 10 and 10 x 6"),
        (shorter, "different steps, 3 and 2"),
        (changed(trace, dictionaries=notes), "different SAEs"),
    ):
        with pytest.raises(RevelioError, match=words) as problem:
            reading.of_second(second)
        assert str(problem.value).endswith(".") and "\n" not in str(problem.value)


def test_another_sae_of_the_same_size_is_told_by_its_statistics(trace: Trace) -> None:
    place = "middle_block.1"
    means = trace.dictionaries[place].mean_active
    assert means is not None
    note = dataclasses.replace(trace.dictionaries[place], mean_active=means + 1)
    with pytest.raises(RevelioError, match="different SAEs"):
        Reading(trace, place).of_second(changed(trace, dictionaries={**trace.dictionaries, place: note}))


def test_a_timeline_needs_no_equal_maps(trace: Trace) -> None:
    shorter = changed(trace, frames=tuple(f for f in trace.frames if f.step < 2))
    assert len(Reading(trace, UP).of_second(shorter, same_maps=False).steps) == 2
