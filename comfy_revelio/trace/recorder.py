"""Collect the frames of a sampling run while it is running."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..dictionary import Codes, Dictionary
from ..errors import RevelioError
from .frames import DictionaryNote, Frame
from .sampler_steps import look_ahead
from .trace import Trace

MAX_BYTES = 4 * 1024**3


class RunRecorder:
    """Collects the frames of one run. They stay on the device that computed them until `finish` moves all of
    them to the CPU at once: copying them at every step would make the device wait every time.

    total_steps, sigmas: the schedule. max_bytes: limit for all collected codes (per token, 12 bytes for each
    of its k codes, plus up to 8 if the dictionary normalises its inputs).
    """

    def __init__(self, total_steps: int, sigmas: Iterable[float], *, max_bytes: int = MAX_BYTES) -> None:
        self.total_steps = total_steps
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        self.max_bytes = max_bytes
        self._frames: list[Frame] = []
        self._predictions: list[int | None] = []
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, frame: Frame, prediction: int | None = None) -> None:
        """Store the codes of one model call. Safe to call from several threads.

        prediction: number of the sampler's prediction that the call belongs to, if known. `finish` uses these
        numbers to find predictions that looked ahead, and assigns each to the step that requested it.
        """
        codes, grid = frame.codes, frame.grid
        if len(codes.shape) != 2 or len(grid) not in (2, 3) or codes.shape[1] != math.prod(grid):
            sides = " by ".join(str(side) for side in grid)
            raise RevelioError(f"Codes of shape {list(codes.shape)} do not fit a grid of {sides}.")
        if not (math.isfinite(frame.sigma) and math.isfinite(frame.timestep)):
            raise RevelioError(
                f"A frame needs a finite sigma and timestep, not {frame.sigma} and {frame.timestep}."
            )
        # Cloned, because codes may be views of a larger tensor or of memory that the model reuses.
        copies = (None if t is None else t.detach().clone() for t in (codes.scale, codes.shift))
        kept = Codes(codes.indices.to(torch.int32), codes.values.detach().clone(), codes.n_features, *copies)
        size = kept.nbytes + kept.indices.nbytes  # indices twice: the trace stores each in 8 bytes
        with self._lock:
            if self._bytes + size > self.max_bytes:
                raise RevelioError(
                    f"Recording would need more than {self.max_bytes / 1024**3:.1f} GiB; "
                    "record fewer hook points, fewer steps, a smaller batch or a smaller image."
                )
            self._bytes += size
            self._frames.append(replace(frame, codes=kept))
            self._predictions.append(prediction)

    def finish(
        self,
        dictionaries: Mapping[str, Dictionary | DictionaryNote],
        aliases: Mapping[str, Sequence[str]] | None = None,
    ) -> Trace:
        """Return the trace of all frames so far, and empty the recorder.

        dictionaries: {hook point: dictionary}. aliases: {hook point: its other names}.
        """
        with self._lock:
            frames = _with_steps(self._frames, self._predictions, self.sigmas)
            self._frames, self._predictions, self._bytes = [], [], 0
        notes = {
            name: DictionaryNote.of(known, (aliases or {}).get(name, ()))
            if isinstance(known, Dictionary)
            else known
            for name, known in dictionaries.items()
        }
        for name in dict.fromkeys(frame.hook_point for frame in frames):
            if name not in notes:
                raise RevelioError(f"Codes of {name} were recorded, but its dictionary is missing.")
        return Trace(_to_cpu(frames), notes, self.total_steps, self.sigmas)


def _with_steps(frames: list[Frame], predictions: list[int | None], sigmas: tuple[float, ...]) -> list[Frame]:
    """Return all frames; those of evaluations that looked ahead move to the step that requested them."""
    numbers = sorted({number for number in predictions if number is not None})
    noise = {number: frame.sigma for number, frame in zip(predictions, frames, strict=True)}
    moved = look_ahead([noise[number] for number in numbers], sigmas)
    if not moved:
        return frames
    steps = {numbers[position]: step for position, step in moved.items()}
    counts: dict[tuple[str, str, int], int] = {}
    result = []
    for number, frame in zip(predictions, frames, strict=True):
        step = frame.step if number is None else steps.get(number, frame.step)
        key = (frame.hook_point, frame.role, step)
        result.append(replace(frame, step=step, evaluation=counts.get(key, 0)))
        counts[key] = counts.get(key, 0) + 1
    return result


def _to_cpu(frames: list[Frame]) -> tuple[Frame, ...]:
    """Return the frames with their codes on the CPU; codes of the same shape are moved together."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, frame in enumerate(frames):
        codes = frame.codes
        kind = (codes.values.device, *codes.values.shape, codes.scale is None, codes.shift is None)
        groups.setdefault(kind, []).append(number)
    moved: dict[int, Frame] = {}
    for numbers in groups.values():
        together = [frames[n].codes for n in numbers]
        indices = torch.stack([codes.indices for codes in together]).cpu().to(torch.int64)
        values = torch.stack([codes.values for codes in together]).cpu()
        scales, shifts = (
            _stacked([getattr(codes, name) for codes in together]) for name in ("scale", "shift")
        )
        for number, i, v, scale, shift in zip(numbers, indices, values, scales, shifts, strict=True):
            codes = Codes(i, v, frames[number].codes.n_features, scale, shift)
            moved[number] = replace(frames[number], codes=codes)
    return tuple(moved[number] for number in range(len(frames)))


def _stacked(tensors: list[Tensor | None]) -> Sequence[Tensor | None]:
    """Move tensors, which are either all present or all None, to the CPU in one transfer."""
    found = [tensor for tensor in tensors if tensor is not None]
    return list(torch.stack(found).cpu()) if found else tensors
