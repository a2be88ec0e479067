"""Record how much each image patch attends to the words of the prompts in one sampling run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import RevelioError

MAX_BYTES = 4 * 1024**3
SCALE = 256.0
"""Shares times this factor are stored in float16, because float16 has few digits for tiny numbers."""
_Key = tuple[str, int, int, float, str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class WordFrame:
    """The attention of the image patches to the words of a prompt, in one layer and one model call.

    step, evaluation, sigma, role: as in `Frame`.
    """

    layer: str
    step: int
    evaluation: int
    sigma: float
    role: str
    grid: tuple[int, int]
    """Height and width of the patch grid."""
    scaled: Tensor
    """Float16 [B, words, H*W]: the share of its attention that each patch pays to each word, averaged over
    heads (and over the frames of a video), times SCALE."""

    @property
    def batch_size(self) -> int:
        return len(self.scaled)

    @property
    def shares(self) -> Tensor:
        """The shares of attention, float32 [B, words, H*W]."""
        return self.scaled.float() / SCALE

    def maps(self, item: int) -> Tensor:
        """Return the shares of attention in one image: float32 [words, H, W]."""
        return (self.scaled[item].float() / SCALE).unflatten(1, self.grid)


@dataclass(frozen=True, eq=False)
class WordTrace:
    """The attention to words recorded in one run."""

    frames: tuple[WordFrame, ...]
    words: Mapping[str, tuple[str, ...]]
    """Role -> the words of its prompt in order, including repeats; roles with unknown prompts are omitted."""
    total_steps: int

    @property
    def layers(self) -> tuple[str, ...]:
        """The recorded layers, in the order in which they were first computed."""
        return tuple(dict.fromkeys(frame.layer for frame in self.frames))

    @property
    def roles(self) -> tuple[str, ...]:
        """The recorded roles, such as ("cond", "uncond")."""
        return tuple(dict.fromkeys(frame.role for frame in self.frames))

    @property
    def batch_size(self) -> int:
        """Number of items in the batch; 0 for an empty trace."""
        return max((frame.batch_size for frame in self.frames), default=0)

    @property
    def nbytes(self) -> int:
        """Memory that all shares take, in bytes."""
        return sum(frame.scaled.nbytes for frame in self.frames)

    def select(
        self, role: str, *, step: int | None = None, layers: Sequence[str] | None = None
    ) -> list[WordFrame]:
        """Return the frames of a role (at one step and in some layers, if given); raise if there are none."""
        if not self.words:
            raise RevelioError(
                "The words of the sampler's prompts are unknown: connect the positive and negative outputs "
                "of Record Words to the sampler, instead of CLIP Text Encode."
            )
        if role not in self.words:
            raise RevelioError(
                f"The words of {role!r} are unknown; known are those of {', '.join(self.words)}. Connect "
                "that output of Record Words to the sampler, or choose another role."
            )
        if not self.words[role]:
            raise RevelioError(f"Nothing was recorded for {role!r}: that prompt has no words.")
        if not self.frames:
            raise RevelioError(
                "No attention to words was recorded: the sampler made no step with the recorded model, every "
                "prompt covered only a part of the image, or another node shortened the prompts."
            )
        if role not in self.roles:
            raise RevelioError(
                f"Nothing was recorded for {role!r}; this run has {', '.join(self.roles)}. At CFG 1 the "
                "sampler leaves the negative prompt out, and a prompt for a part of the image is not "
                "recorded."
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
            where = f" at {', '.join(layers)}" if layers else ""
            steps = sorted({frame.step for frame in mine if layers is None or frame.layer in layers})
            raise RevelioError(f"There is no step {step}{where}; there are {steps[0]} to {steps[-1]}.")
        return found


class WordRecorder:
    """Collects the frames of a run while it is running, and averages the cross-attentions of each layer.

    max_bytes: limit on the trace. The shares of a step stay on the device until the next step begins and are
    then moved to the CPU together, because copying them layer by layer would make the device wait every time.
    """

    def __init__(self, total_steps: int, *, max_bytes: int = MAX_BYTES) -> None:
        self.total_steps = total_steps
        self.max_bytes = max_bytes
        self._sums: dict[_Key, tuple[Tensor, int]] = {}  # of the current step
        self._frames: list[WordFrame] = []  # of earlier steps
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
        """Store the shares [B, words, patches] of one cross-attention. grid: (H, W); for videos (F, H, W).

        Safe to call from several threads. Raises RevelioError when the trace exceeds max_bytes, or, at the
        beginning of a step, when the steps so far suggest that the whole run would exceed max_bytes.
        """
        shares = shares.detach().float()
        if len(grid) == 3:
            shares = shares.unflatten(2, (grid[0], -1)).mean(2)
        key = (layer, step, evaluation, sigma, role, (grid[-2], grid[-1]))
        with self._lock:
            if any(other[1] != step for other in self._sums):
                self._store()
                steps = len({frame.step for frame in self._frames})
                self._check(self._bytes / steps * max(self.total_steps, steps))
            total, count = self._sums.get(key, (None, 0))
            if total is None:
                self._bytes += 2 * shares.numel()
                self._check(self._bytes)
            self._sums[key] = (shares if total is None else total + shares, count + 1)

    def finish(self, words: Mapping[str, Iterable[str]]) -> WordTrace:
        """Return a trace of all frames so far, on the CPU, and empty the recorder. words: role -> words."""
        with self._lock:
            self._store()
            frames, self._frames, self._bytes = tuple(self._frames), [], 0
        return WordTrace(frames, {role: tuple(prompt) for role, prompt in words.items()}, self.total_steps)

    def _store(self) -> None:
        """Turn the sums of the current step into frames on the CPU."""
        for key, (total, count) in self._sums.items():
            self._frames.append(WordFrame(*key, (total * (SCALE / count)).half().cpu()))
        self._sums.clear()

    def _check(self, size: float) -> None:
        if size > self.max_bytes:
            raise RevelioError(
                f"Recording the words of this run would take {size / 1024**3:.1f} GiB, more than "
                f"{self.max_bytes / 1024**3:.1f}; use fewer steps, a smaller batch, a smaller image or a "
                "shorter prompt."
            )
