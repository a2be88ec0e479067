"""A trace: everything recorded in one sampling run (immutable), with methods to read it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import RevelioError
from . import ranking, save_load
from .frames import DictionaryNote, Frame
from .ranking import FeatureScore, Way

if TYPE_CHECKING:
    from ..dictionary import Dictionary


@dataclass(frozen=True, eq=False)
class Trace:
    """The codes recorded in one sampling run, or for one prompt."""

    frames: tuple[Frame, ...]
    """Frames in the order in which they were computed, with their codes on the CPU."""
    dictionaries: Mapping[str, DictionaryNote]
    """Hook point -> note on its dictionary."""
    total_steps: int
    """Number of steps in the schedule, including steps that were not recorded."""
    sigmas: tuple[float, ...]
    """The noise levels of the schedule, usually total_steps + 1 numbers ending in 0."""
    words: tuple[str, ...] = ()
    """For a trace of a prompt, the word at each of the height * width positions; empty for images."""

    @property
    def hook_points(self) -> tuple[str, ...]:
        """The recorded hook points, in the order in which they were first computed."""
        return tuple(dict.fromkeys(frame.hook_point for frame in self.frames))

    @property
    def batch_size(self) -> int:
        """Number of items in the batch; 0 for an empty trace."""
        return max((frame.codes.shape[0] for frame in self.frames), default=0)

    @property
    def nbytes(self) -> int:
        """Memory that all codes take, in bytes."""
        return sum(frame.codes.nbytes for frame in self.frames)

    def hook_point(self, name: str = "") -> str:
        """Return the recorded hook point with this name or alias; the first one if no name is given."""
        if not self.frames:
            raise RevelioError(
                "This trace is empty: the sampler made no step with the recorded model; sample again."
            )
        if not name:
            return self.hook_points[0]
        called = [known for known in self.hook_points if name in self.dictionaries[known].aliases]
        if name not in self.hook_points and len(called) == 1:
            return called[0]
        self._check_hook_point(name)
        return name

    def hook_points_of(self, dictionary: Dictionary) -> list[str]:
        """Return the recorded hook points that match the sizes and the hook point of a dictionary.

        Without names to compare, a hook point is returned only if no other one matches the sizes.
        """
        notes = {name: self.dictionaries[name] for name in self.hook_points}
        alike = [name for name, note in notes.items() if note.fits(dictionary)]
        own = dictionary.hook_point
        if called := [name for name in alike if own in notes[name].spellings(name)]:
            return called
        unnamed = [name for name in alike if not own or notes[name].spellings(name) == (name,)]
        return unnamed if len(alike) == 1 else []

    def roles(self, hook_point: str) -> tuple[str, ...]:
        """Return the roles recorded at a hook point, such as ("cond", "uncond")."""
        self._check_hook_point(hook_point)
        return tuple(dict.fromkeys(f.role for f in self.frames if f.hook_point == hook_point))

    def steps(self, hook_point: str, role: str = "cond") -> list[Frame]:
        """Return the frame of the first evaluation of each recorded step, in the order of the steps."""
        if role not in (roles := self.roles(hook_point)):
            raise RevelioError(f"Nothing was recorded for role {role!r}; recorded roles: {', '.join(roles)}.")
        first: dict[int, Frame] = {}
        for frame in self.frames:
            if frame.hook_point == hook_point and frame.role == role:
                known = first.get(frame.step)
                if known is None or frame.evaluation < known.evaluation:
                    first[frame.step] = frame
        return [first[step] for step in sorted(first)]

    def video_frames(self, hook_point: str) -> int:
        """Return the number of video frames that the tokens at a hook point cover; 1 for images."""
        self._check_hook_point(hook_point)
        return max(math.prod(f.grid[:-2]) for f in self.frames if f.hook_point == hook_point)

    def feature_map(
        self,
        hook_point: str,
        feature: int,
        *,
        step: int | None = None,
        item: int = 0,
        role: str = "cond",
        frame: int | None = None,
    ) -> Tensor:
        """Return where a feature fires: float32 [H, W] at `step`, or [steps, H, W] at all recorded steps.

        frame: index of a video frame, from 0; None takes the value farthest from 0 over all frames.
        """
        frames = self._chosen(hook_point, step, item, role)
        n = frames[0].codes.n_features
        if not 0 <= feature < n:
            raise RevelioError(f"Feature {feature} does not exist at {hook_point}; choose from 0 to {n - 1}.")
        if len({frame.grid for frame in frames}) > 1:
            raise RevelioError("The recorded steps differ in size; read one step at a time.")
        maps = torch.stack([step.codes[item].of(feature).reshape(step.grid) for step in frames])
        maps = _of_frame(maps.reshape(len(maps), -1, *maps.shape[-2:]), frame)
        return maps if step is None else maps[0]

    def top_features(
        self,
        hook_point: str,
        count: int = 8,
        *,
        step: int | None = None,
        item: int | None = None,
        role: str = "cond",
        by: Way = "peak",
    ) -> list[FeatureScore]:
        """Rank the features with `ranking.rank`. step, item: one step or batch item; None means all."""
        frames = self._chosen(hook_point, step, item or 0, role)
        return ranking.rank(frames, count, item, by, self.dictionaries[hook_point].label)

    def joined(self, other: Trace) -> Trace:
        """Return this trace together with the hook points of another trace of the same run."""
        if self.sigmas != other.sigmas or self.batch_size != other.batch_size:
            raise RevelioError(
                "The two traces are of different runs: their steps or batches differ; join traces of "
                "one run of one sampler."
            )
        if both := [name for name in self.hook_points if name in other.hook_points]:
            raise RevelioError(f"Both traces recorded {both[0]}; record each hook point once.")
        if self.words != other.words:
            raise RevelioError(
                "The two traces are of different prompts, or of text encoders that split prompts "
                "differently; join traces of one prompt in one text encoder."
            )
        notes = {**self.dictionaries, **other.dictionaries}
        return Trace((*self.frames, *other.frames), notes, self.total_steps, self.sigmas, self.words)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this trace to a .safetensors file, from which `load` restores it exactly."""
        parts = (self.frames, self.dictionaries, self.total_steps, self.sigmas, self.words)
        save_load.save(save_load.TraceParts(*parts), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace; raise RevelioError if the file is missing, broken or not a trace."""
        return cls(*save_load.load(path))

    def _check_hook_point(self, hook_point: str) -> None:
        if hook_point not in self.hook_points:
            known = ", ".join(self.hook_points) or "none"
            raise RevelioError(f"Hook point {hook_point!r} was not recorded; recorded are: {known}.")

    def _chosen(self, hook_point: str, step: int | None, item: int, role: str) -> list[Frame]:
        frames = self.steps(hook_point, role)
        if step is not None:
            recorded = ", ".join(str(frame.step) for frame in frames)
            frames = [frame for frame in frames if frame.step == step]
            if not frames:
                raise RevelioError(f"Step {step} was not recorded; recorded are {recorded}.")
        batch = min(frame.codes.shape[0] for frame in frames)
        if not 0 <= item < batch:
            raise RevelioError(f"There is no batch item {item}; choose from 0 to {batch - 1}.")
        return frames


def _of_frame(maps: Tensor, frame: int | None) -> Tensor:
    """Reduce maps [steps, F, H, W] of F video frames to [steps, H, W]; frame: as in `feature_map`."""
    if frame is None:
        return maps.gather(1, maps.abs().argmax(dim=1, keepdim=True))[:, 0]
    if not 0 <= frame < maps.shape[1]:
        raise RevelioError(f"There is no frame {frame}; choose from 0 to {maps.shape[1] - 1}.")
    return maps[:, frame]
