"""Everything that was noted about the words of the prompts in one sampling run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RevelioError

MAX_BYTES = 2 * 1024**3
_Key = tuple[str, int, int, float, str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class WordFrame:
    """What the words of a prompt got in one layer and one model call.

    step, evaluation, sigma, role, grid: as in Frame. shares: float16 [B, words, H*W or F*H*W], the share of
    its attention that each patch pays to each word, mean over heads.
    """

    layer: str
    step: int
    evaluation: int
    sigma: float
    role: str
    grid: tuple[int, ...]
    shares: Tensor


@dataclass(frozen=True, eq=False)
class WordTrace:
    """The frames of one run; words: those of each role's prompt, in order, also when said twice."""

    frames: tuple[WordFrame, ...]
    words: Mapping[str, tuple[str, ...]]
    total_steps: int

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(frame.layer for frame in self.frames))

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(frame.role for frame in self.frames))

    @property
    def batch_size(self) -> int:
        return max((len(frame.shares) for frame in self.frames), default=0)

    @property
    def nbytes(self) -> int:
        return sum(frame.shares.numel() * frame.shares.element_size() for frame in self.frames)

    def select(
        self, role: str, *, step: int | None = None, layers: Sequence[str] | None = None
    ) -> list[WordFrame]:
        """The frames of a role, of one step and of some layers. RevelioError where there are none."""
        if not self.frames:
            raise RevelioError(
                "No attention to words was recorded: the sampler made no step with the recorded model, or "
                "every prompt covered only a part of the picture."
            )
        if role not in self.roles:
            reason = "At CFG 1 the sampler leaves the negative prompt out"
            if not self.words.get(role, ("",)):
                reason = "That prompt has no words"
            raise RevelioError(
                f"Nothing was recorded for {role!r}; this run has {', '.join(self.roles)}. {reason}."
            )
        for layer in layers or ():
            if layer not in self.layers:
                raise RevelioError(f"There is no layer {layer!r}; this run has {', '.join(self.layers)}.")
        mine = [frame for frame in self.frames if frame.role == role]
        found = [
            frame
            for frame in mine
            if (step is None or frame.step == step) and (layers is None or frame.layer in layers)
        ]
        if not found:
            place = f" at {', '.join(layers)}" if layers else ""
            steps = sorted({frame.step for frame in mine if layers is None or frame.layer in layers})
            raise RevelioError(f"There is no step {step}{place}; there are {steps[0]} to {steps[-1]}.")
        return found


class WordRecorder:
    """Collects the frames of one run while it goes on. Parts of one layer are averaged as they come.

    max_bytes: bound on everything held. The shares stay on the device that computed them until `finish`.
    """

    def __init__(self, total_steps: int, *, max_bytes: int = MAX_BYTES) -> None:
        self.total_steps = total_steps
        self.max_bytes = max_bytes
        self._sums: dict[_Key, tuple[Tensor, int]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def add(
        self,
        layer: str,
        step: int,
        evaluation: int,
        sigma: float,
        role: str,
        grid: tuple[int, ...],
        shares: Tensor,
    ) -> None:
        """Keep the shares [B, words, patches] of one attention. Safe to call from several threads."""
        key = (layer, step, evaluation, sigma, role, grid)
        half = shares.detach().to(torch.float16)
        with self._lock:
            total, count = self._sums.get(key, (None, 0))
            if total is None:
                self._bytes += half.numel() * half.element_size()
            if self._bytes > self.max_bytes:
                raise RevelioError(
                    f"Recording words would need more than {self.max_bytes / 1024**3:.1f} GiB; use fewer "
                    "steps, a smaller batch, a smaller image or a shorter prompt."
                )
            self._sums[key] = (half if total is None else total + half, count + 1)

    def finish(self, words: Mapping[str, Iterable[str]]) -> WordTrace:
        """The trace of everything so far, on the CPU; `words` by role. The recorder is empty after."""
        with self._lock:
            sums, self._sums, self._bytes = self._sums, {}, 0
        frames = tuple(WordFrame(*key, (total / count).cpu()) for key, (total, count) in sums.items())
        return WordTrace(frames, {role: tuple(said) for role, said in words.items()}, self.total_steps)
