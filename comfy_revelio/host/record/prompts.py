"""Recording a whole list of prompts: a picture of each, all in one trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...errors import RevelioError
from ...trace import Trace
from ...trace.merge_runs import as_one_batch
from ..sae_files import SAEHandle
from .features import record
from .generation import encode, encoded_batches, sample

AT_ONCE = 8
"""Pictures that are sampled together."""


def record_prompts(
    model: Any, clip: Any, saes: Sequence[SAEHandle], prompts: Sequence[str], *, seed: int, **settings: Any
) -> tuple[Trace, Tensor]:
    """A picture of each prompt with the seeds that follow `seed`: (trace of all, latents of all).

    saes: each records at its own place, all in the same runs. settings: as for `sample`.
    """
    if not prompts:
        raise RevelioError("There are no prompts to draw; write some, one a line.")
    recorders = []
    for sae in saes:
        model, recorder = record(model, sae)
        recorders.append(recorder)
    bar = comfy.utils.ProgressBar(len(prompts))
    traces, latents = [], []
    for drawn in in_parts(model, clip, prompts, seed, **settings):
        first, *others = (recorder.trace_of(drawn) for recorder in recorders)
        for other in others:
            first = first.joined(other)
        traces.append(first)
        latents.append(drawn)
        bar.update(len(drawn))
    return as_one_batch(traces), torch.cat(latents)


def in_parts(model: Any, clip: Any, prompts: Sequence[str], seed: int, **settings: Any) -> Iterator[Tensor]:
    """Latents of the prompts, a few at a time, with the empty negative prompt; stops on Interrupt.

    Prompt i has the seed `seed` + i, so that lists of the same length share their seeds line by line.
    """
    negative = encode(clip, [""])
    for rows, positive in encoded_batches(clip, prompts, AT_ONCE):
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield sample(model, positive, negative, range(seed + rows.start, seed + rows.stop), **settings)
