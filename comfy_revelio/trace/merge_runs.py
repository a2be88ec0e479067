"""Merge runs with the same schedule into one trace, in which the runs are batch items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..dictionary.codes import concatenate
from ..errors import RevelioError
from .frames import Frame
from .trace import Trace


def as_one_batch(traces: Sequence[Trace]) -> Trace:
    """Merge traces into one, with the batch items of all traces in order, as if sampled in one batch."""
    if not traces:
        raise RevelioError("There are no runs to merge; give at least one.")
    first, *others = traces
    if not others:
        return first
    keyed = [{_key(frame): frame for frame in trace.frames} for trace in traces]
    if any(trace.sigmas != first.sigmas for trace in others) or any(set(k) != set(keyed[0]) for k in keyed):
        raise RevelioError(
            "Runs with different schedules, hook points or sizes cannot be merged; sample all runs alike."
        )
    frames = tuple(
        replace(frame, codes=concatenate([each[key].codes for each in keyed]))
        for key, frame in keyed[0].items()
    )
    return Trace(frames, first.dictionaries, first.total_steps, first.sigmas)


def _key(frame: Frame) -> tuple[object, ...]:
    return (frame.hook_point, frame.step, frame.evaluation, frame.role, frame.grid)
