"""What to change, how much, where, when and for whom; checked once, when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError
from .selection import Selection

MODES = ("push", "add", "scale")
PLACES = ("usual", "everywhere")
ROLES = ("cond", "uncond", "both")


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of the features of one hook point. z is the token's own code, w the feature's weight.

    mode: "push"  below 0: dz = strength * w * z, so that -1 switches a feature off where it fires and
                  -3 takes out three times what it puts in; nothing happens where it is silent.
                  Above 0: dz = strength * w * mean_active * place, whatever the token's own code.
          A concept of the selection says itself where and how much, for the kind of picture that it meets.
          Above 0: dz = strength * w * (1 - presence) * amount, where presence (0..1) is how much of what it
          usually raises is at the token already.
          Below 0: dz = strength * w * (z * share + presence * min(amount, 0)): what fires for it goes, and
          what it pushed aside comes back, as far as it is present.
          "add"   dz = strength * w * mean_active everywhere, of either sign (sdxl-unbox's "add").
          "scale" dz = strength * w * z: +1 doubles a feature where it fires, -1 switches it off.
    place: for push above 0. "usual": the feature's mean map, resized to the grid (everywhere for
        dictionaries without maps); "everywhere": 1.
    mask: [h, w], [1, h, w] or [B, h, w] in 0..1, resized to the grid by area; it multiplies dz, and
        with it place counts as "everywhere", but for concepts. Fewer masks than batch items are repeated.
    start_percent, end_percent: share of the schedule, 0..1; start is in, end is out, but an end of 1
        is in too. start = end is an empty range.
    role: "cond", "uncond" or "both".

    Raises RevelioError, on construction, for anything that cannot be meant.
    """

    dictionary: Dictionary
    selection: Selection
    strength: float
    mode: str = "push"
    place: str = "usual"
    mask: Tensor | None = None
    start_percent: float = 0.0
    end_percent: float = 1.0
    role: str = "cond"

    def __post_init__(self) -> None:
        for what, known in (("mode", MODES), ("place", PLACES), ("role", ROLES)):
            value = getattr(self, what)
            if value not in known:
                raise RevelioError(f"Unknown {what} {value!r}; choose one of {', '.join(known)}.")
        if not math.isfinite(self.strength):
            raise RevelioError(f"The strength must be a finite number, not {self.strength}.")
        if not 0.0 <= self.start_percent <= self.end_percent <= 1.0:
            raise RevelioError(
                "Start and end percent must be from 0 to 1 with start before end, "
                f"not {self.start_percent} and {self.end_percent}."
            )
        self.dictionary.feature_index(self.selection.features)
        if self.selection.concepts and (self.mode != "push" or self.place != "usual"):
            raise RevelioError(
                f"A concept has its own place, which mode {self.mode} with place {self.place} leaves out: "
                "choose mode push and place usual, or name features."
            )
        if self.needs_stats and self.active and self.dictionary.stats is None:
            raise RevelioError(
                "This dictionary has no mean activations, so nothing is known to add; "
                "use mode scale or a negative strength, or a dictionary saved with feature statistics."
            )
        if self.mask is not None:
            object.__setattr__(self, "mask", _checked_mask(self.mask))

    @property
    def active(self) -> bool:
        """Whether the intervention can change anything at all."""
        if self.strength == 0.0 or self.start_percent >= self.end_percent:
            return False
        return not self.selection.empty

    @property
    def puts_in(self) -> bool:
        """Whether it adds something of its own, and not a multiple of what fires."""
        return self.mode == "add" or (self.mode == "push" and self.strength > 0.0)

    @property
    def reads_codes(self) -> bool:
        """Whether the change depends on the tokens' own codes."""
        return not self.puts_in or bool(self.selection.concepts)

    @property
    def needs_stats(self) -> bool:
        return self.puts_in and bool(self.selection.features)

    def applies(self, role: str, percent: float) -> bool:
        """Whether it acts on this role ("cond2" counts as cond) at this share of the schedule."""
        if not self.active or (self.role != "both" and role.rstrip("0123456789") != self.role):
            return False
        return self.start_percent <= percent and (percent < self.end_percent or self.end_percent == 1.0)


@dataclass(frozen=True)
class TokenContext:
    """Where some tokens [B, T, d] come from.

    role: "cond", "uncond", "cond2"...; grid: (height, width) with height * width = T.
    items: the batch item of each of the B rows, as numbers or a slice; None for 0 to B - 1.
    percent: progress of the schedule, 0..1. timestep: the model's, for dictionaries that follow it.
    """

    role: str = "cond"
    grid: tuple[int, int] = (1, 1)
    items: slice | tuple[int, ...] | None = None
    percent: float = 0.0
    timestep: float = 0.0

    def item_numbers(self, rows: int) -> list[int]:
        if self.items is None:
            return list(range(rows))
        if isinstance(self.items, slice):
            start, step = self.items.start or 0, self.items.step or 1
            numbers = list(range(start, start + rows * step, step))
        else:
            numbers = list(self.items)
        if len(numbers) != rows:
            raise RevelioError(f"{rows} rows of tokens need as many batch item numbers, not {len(numbers)}.")
        return numbers


def _checked_mask(mask: Tensor) -> Tensor:
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or 0 in mask.shape:
        raise RevelioError(f"A mask must be [batch, height, width], but this one is {list(mask.shape)}.")
    mask = mask.detach().to(torch.float32)
    if not bool(mask.isfinite().all()):
        raise RevelioError("A mask must hold numbers from 0 to 1, but this one has some that are not finite.")
    return mask.clamp(0.0, 1.0)  # resizing and blurring overshoot a little
