"""Record Prompts: generate an image for each of many prompts, and record all images in one trace."""

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
from ..comfy_types import Clip, Model
from ..sae_files import SAEHandle
from .features import record
from .generation import encode, encoded_batches, sample

AT_ONCE = 8
"""The largest number of images that are sampled in one batch."""


def record_prompts(
    model: Model, clip: Clip, saes: Sequence[SAEHandle], prompts: Sequence[str], *, seed: int, **settings: Any
) -> tuple[Trace, Tensor]:
    """Return (one trace of all images, their latents [n, C, h, w]); prompt i is sampled with seed `seed` + i.

    saes: all record in the same runs, each at the hook point in its file. settings: as for `sample`.
    """
    if not prompts:
        raise RevelioError("There are no prompts; write at least one, one per line.")
    recorders = []
    for sae in saes:
        model, recorder = record(model, sae)
        recorders.append(recorder)
    bar = comfy.utils.ProgressBar(len(prompts))
    traces, latents = [], []
    for samples in sample_in_parts(model, clip, prompts, seed, **settings):
        first, *others = (recorder.trace_of(samples) for recorder in recorders)
        for other in others:
            first = first.joined(other)
        traces.append(first)
        latents.append(samples)
        bar.update(len(samples))
    return as_one_batch(traces), torch.cat(latents)


def sample_in_parts(
    model: Model, clip: Clip, prompts: Sequence[str], seed: int, **settings: Any
) -> Iterator[Tensor]:
    """Sample the prompts with an empty negative prompt; yield at most AT_ONCE latents at a time.

    Prompt i is sampled with seed `seed` + i, so two lists of prompts share their seeds. Stops on Interrupt.
    """
    negative = encode(clip, [""])
    for rows, positive in encoded_batches(clip, prompts, AT_ONCE):
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield sample(model, positive, negative, range(seed + rows.start, seed + rows.stop), **settings)
