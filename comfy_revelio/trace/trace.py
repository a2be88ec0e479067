"""A trace: everything recorded in one sampling run, immutable, with the questions people ask."""

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
from .ranking import FeatureScore

if TYPE_CHECKING:
    from ..dictionary import Dictionary


@dataclass(frozen=True, eq=False)
class Trace:
    """Frames in the order in which they were computed, on the CPU.

    dictionaries: hook point -> note. total_steps: steps of the schedule, recorded or not.
    sigmas: the schedule itself, usually total_steps + 1 numbers ending in 0.
    words: for a trace of a prompt, what stands at each of the height * width positions; empty for pictures.
    """

    frames: tuple[Frame, ...]
    dictionaries: Mapping[str, DictionaryNote]
    total_steps: int
    sigmas: tuple[float, ...]
    words: tuple[str, ...] = ()

    @property
    def hook_points(self) -> tuple[str, ...]:
        """The recorded hook points, in the order in which they were first computed."""
        return tuple(dict.fromkeys(frame.hook_point for frame in self.frames))

    @property
    def batch_size(self) -> int:
        """Items of the batch; 0 for an empty trace."""
        return max((frame.codes.shape[0] for frame in self.frames), default=0)

    @property
    def nbytes(self) -> int:
        """Memory of all codes, in bytes."""
        return sum(frame.codes.nbytes for frame in self.frames)

    def place(self, name: str = "") -> str:
        """The recorded hook point called `name`, also by an alias; the first for no name.

        Raises RevelioError when there is none.
        """
        if not self.frames:
            raise RevelioError(
                "This trace is empty: the sampler made no step with the recorded model; sample at least one."
            )
        if not name:
            return self.hook_points[0]
        called = [place for place in self.hook_points if name in self.dictionaries[place].aliases]
        if name not in self.hook_points and len(called) == 1:
            return called[0]
        self._check_hook_point(name)
        return name

    def hook_points_of(self, dictionary: Dictionary) -> list[str]:
        """The recorded places whose codes are of a dictionary: of its sizes, and called as it says.

        Where neither it nor the trace says what tells them apart, the only place of its sizes; else none.
        """
        notes = {name: self.dictionaries[name] for name in self.hook_points}
        alike = [name for name, note in notes.items() if note.fits(dictionary)]
        said = dictionary.hook_point
        if called := [name for name in alike if said in notes[name].spellings(name)]:
            return called
        unsaid = [name for name in alike if not said or notes[name].spellings(name) == (name,)]
        return unsaid if len(alike) == 1 else []

    def roles(self, hook_point: str) -> tuple[str, ...]:
        """The roles recorded at a hook point, such as ("cond", "uncond")."""
        self._check_hook_point(hook_point)
        return tuple(dict.fromkeys(f.role for f in self.frames if f.hook_point == hook_point))

    def steps(self, hook_point: str, role: str = "cond") -> list[Frame]:
        """The first evaluation of every recorded step, in the order of the steps."""
        if role not in (roles := self.roles(hook_point)):
            raise RevelioError(f"Nothing was recorded for role {role!r}; recorded are {', '.join(roles)}.")
        first: dict[int, Frame] = {}
        for frame in self.frames:
            if frame.hook_point == hook_point and frame.role == role:
                known = first.get(frame.step)
                if known is None or frame.evaluation < known.evaluation:
                    first[frame.step] = frame
        return [first[step] for step in sorted(first)]

    def video_frames(self, hook_point: str) -> int:
        """How many frames the tokens of a hook point have: 1 for pictures."""
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
        """Where a feature fires: float32 [H, W] at one step, else [steps, H, W] over the recorded ones.

        frame: which frame of a video, from 0; None for the value farthest from 0 over all of them.
        """
        frames = self._chosen(hook_point, step, item, role)
        n = frames[0].codes.n_features
        if not 0 <= feature < n:
            raise RevelioError(f"Feature {feature} does not exist at {hook_point}; choose from 0 to {n - 1}.")
        if len({frame.grid for frame in frames}) > 1:
            raise RevelioError("The recorded steps differ in size; ask for one step at a time.")
        maps = torch.stack([taken.codes[item].of(feature).reshape(taken.grid) for taken in frames])
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
        by: str = "peak",
    ) -> list[FeatureScore]:
        """The highest features by "peak", "mean" or "distinct"; all steps and items unless named.

        See `ranking.rank` for what the three mean.
        """
        frames = self._chosen(hook_point, step, item or 0, role)
        return ranking.rank(frames, count, item, by, self.dictionaries[hook_point].label)

    def joined(self, other: Trace) -> Trace:
        """This trace with the other hook points of the same run.

        Raises RevelioError when the schedules, the batches or the words differ, or both recorded one place.
        """
        if self.sigmas != other.sigmas or self.batch_size != other.batch_size:
            raise RevelioError(
                "The two traces are of different runs: their steps or batches differ; join what was recorded "
                "in one run of one sampler."
            )
        if both := [name for name in self.hook_points if name in other.hook_points]:
            raise RevelioError(f"Both traces recorded {both[0]}; record each place once.")
        if self.words != other.words:
            raise RevelioError(
                "The two traces are of different prompts, or of text encoders that split them differently; "
                "join what was recorded of one prompt in one text encoder."
            )
        notes = {**self.dictionaries, **other.dictionaries}
        return Trace((*self.frames, *other.frames), notes, self.total_steps, self.sigmas, self.words)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one .safetensors file from which `load` makes exactly this trace again."""
        parts = (self.frames, self.dictionaries, self.total_steps, self.sigmas, self.words)
        save_load.save(save_load.TraceParts(*parts), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace; RevelioError when the file is missing, broken or not a trace."""
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
    """[steps, H, W] of maps [steps, F, H, W]."""
    if frame is None:
        return maps.gather(1, maps.abs().argmax(dim=1, keepdim=True))[:, 0]
    if not 0 <= frame < maps.shape[1]:
        raise RevelioError(f"There is no frame {frame}; choose from 0 to {maps.shape[1] - 1}.")
    return maps[:, frame]
