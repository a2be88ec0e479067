"""Runs of the same schedule as one trace, their pictures one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..dictionary.codes import concatenate
from ..errors import RevelioError
from .frames import Frame
from .trace import Trace


def as_one_batch(traces: Sequence[Trace]) -> Trace:
    """The batch items of all traces in their order, as if they had been sampled in one batch.

    Raises RevelioError when the runs differ in anything but their items: places, steps, roles, sizes.
    """
    if not traces:
        raise RevelioError("There are no runs to put together; give at least one.")
    first, *others = traces
    if not others:
        return first
    keyed = [{_key(frame): frame for frame in trace.frames} for trace in traces]
    if any(trace.sigmas != first.sigmas for trace in others) or any(set(k) != set(keyed[0]) for k in keyed):
        raise RevelioError(
            "Runs of unlike schedules, places or sizes cannot be put together; sample them in one way."
        )
    frames = tuple(
        replace(frame, codes=concatenate([each[key].codes for each in keyed]))
        for key, frame in keyed[0].items()
    )
    return Trace(frames, first.dictionaries, first.total_steps, first.sigmas)


def _key(frame: Frame) -> tuple[object, ...]:
    return (frame.hook_point, frame.step, frame.evaluation, frame.role, frame.grid)
