"""What to change, how much, where, when and for whom; checked once, when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError
from .modes import BRINGING, READING
from .selection import Selection

MODES = ("push", "add", "scale", "set", "clamp", "ablate", "only", "replace", "ablate_block")
PLACEMENTS = ("usual", "everywhere")
ROLES = ("cond", "uncond", "both", "mirrored")
UNITS = ("mean", "code", "norm")
RAMPS = ("none", "fade in", "fade out", "fade in and out")


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of the features of one hook point. z is the token's own code, w the feature's weight.

    What the dictionary does not explain stays as it is in every mode but the last two. A feature of weight 0
    is left alone.

    mode: "push"  below 0: dz = strength * w * z, so that -1 switches a feature off where it fires and
                  -3 takes out three times what it puts in; nothing happens where it is silent.
                  Above 0: dz = strength * w * unit * place, whatever the token's own code.
          A concept of the selection says itself where and how much, for the kind of picture that it meets.
          Above 0: dz = strength * w * (1 - presence) * amount, where presence (0..1) is how much of what it
          usually raises is at the token already.
          Below 0: dz = strength * w * (z * share + presence * min(amount, 0)): what fires for it goes, and
          what it pushed aside comes back, as far as it is present.
          "add"   dz = strength * w * unit everywhere, of either sign (sdxl-unbox's "add").
          "scale" dz = strength * w * z: +1 doubles a feature where it fires, -1 switches it off.
          "set"   dz = strength * w * unit - z: the feature has this value everywhere.
          "clamp" dz = clamp(z, -limit, limit) - z with limit = strength * |w| * unit, strength above 0.
          "ablate" dz = -|strength| * w * z: 1 switches a feature off where it fires.
          "only"  dz = |strength| * (w - 1) * z for the chosen, -|strength| * z for all others: with 1 the
                  others are off everywhere.
          "replace" the token itself becomes (strength * w * unit) @ W_dec, plus b_out for dictionaries that
                  read outputs: of output - input, the block puts in these features and nothing else
                  (sdxl-unbox's feature icon). Mirrored, the negative half gets no features at all.
          "ablate_block" the token becomes (1 - |strength|) times itself: of output - input, 1 takes the
                  block's contribution out (sdxl-unbox). Features do not matter.
    unit: what strength 1 means where a mode adds an amount. "mean": the feature's mean active value; "code":
        1 in the feature's own numbers; "norm": the mean length of the picture's tokens (2505.24360).
    place: for push above 0. "usual": the feature's mean map, resized to the grid (everywhere for
        dictionaries without maps); "everywhere": 1.
    mask: [h, w], [1, h, w] or [B, h, w] in 0..1, resized to the grid by area; it multiplies dz, and
        with it place counts as "everywhere", but for concepts. Fewer masks than batch items are repeated.
    start_percent, end_percent: share of the schedule, 0..1; start is in, end is out, but an end of 1
        is in too. start = end is an empty range.
    ramp: "none", or how the change grows over that range, linearly: "fade in" from nothing, "fade out" to
        nothing, "fade in and out" to all of it in the middle.
    role: "cond", "uncond", "both", or "mirrored": as it is for cond and with the opposite sign for uncond.

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
    unit: str = "mean"
    ramp: str = "none"
    maps: dict[object, tuple[Tensor, ...]] = field(init=False, repr=False, default_factory=dict)
    """The concepts on the grids and devices met so far, worked out once; they go with the intervention."""

    def __post_init__(self) -> None:
        choices = {"mode": MODES, "place": PLACEMENTS, "role": ROLES, "unit": UNITS, "ramp": RAMPS}
        for what, known in choices.items():
            value = getattr(self, what)
            if value not in known:
                raise RevelioError(f"Unknown {what} {value!r}; choose one of {', '.join(known)}.")
        if not math.isfinite(self.strength):
            raise RevelioError(f"The strength must be a finite number, not {self.strength}.")
        checked_percents(self.start_percent, self.end_percent)
        as_itself = (self.mode, self.place, self.unit) == ("push", "usual", "mean")
        concepts = self.dictionary.concepts if as_itself else None
        object.__setattr__(self, "selection", self.selection.resolved(self.dictionary, concepts))
        self.dictionary.feature_index(self.selection.features)
        self._check_mode()
        if self.selection.concepts and not as_itself:
            raise RevelioError(
                f"A concept has its own place and amount, which mode {self.mode} with place {self.place} and "
                f"unit {self.unit} leaves out: choose mode push and place usual with unit mean, or name "
                "features."
            )
        if self.needs_stats and self.active and self.dictionary.stats is None:
            raise RevelioError(
                "This dictionary has no mean activations, so nothing is known to add; use unit code, mode "
                "scale or a negative strength, or a dictionary saved with feature statistics."
            )
        if self.mask is not None:
            object.__setattr__(self, "mask", checked_mask(self.mask))

    @property
    def active(self) -> bool:
        """Whether the intervention can change anything at all."""
        if self.strength == 0.0 or self.start_percent >= self.end_percent:
            return False
        return self.mode == "ablate_block" or not self.selection.empty

    @property
    def puts_in(self) -> bool:
        """Whether it adds an amount of its own, and not only a multiple of what fires."""
        return self.mode in BRINGING or (self.mode == "push" and self.strength > 0.0)

    @property
    def reads_codes(self) -> bool:
        """Whether the change depends on the tokens' own codes."""
        reads = self.mode in READING or (self.mode == "push" and self.strength < 0.0)
        return reads or bool(self.selection.concepts)

    @property
    def needs_stats(self) -> bool:
        return self.puts_in and self.unit == "mean" and bool(self.selection.features)

    def applies(self, role: str, percent: float) -> bool:
        """Whether it acts on this role ("cond2" counts as cond) at this share of the schedule."""
        if not self.active or (self.role in ("cond", "uncond") and side_of(role) != self.role):
            return False
        return self.start_percent <= percent and (percent < self.end_percent or self.end_percent == 1.0)

    def factor(self, role: str, percent: float) -> float:
        """By how much the change counts for this role at this share of the schedule, from -1 to 1."""
        if not self.applies(role, percent):
            return 0.0
        sign = -1.0 if self.role == "mirrored" and side_of(role) == "uncond" else 1.0
        done = min(1.0, (percent - self.start_percent) / (self.end_percent - self.start_percent))
        return sign * {"fade in": done, "fade out": 1 - done, "fade in and out": 1 - abs(2 * done - 1)}.get(
            self.ramp, 1.0
        )

    def _check_mode(self) -> None:
        if self.mode == "clamp" and self.strength < 0.0:
            raise RevelioError(
                "Mode clamp needs a strength above 0, the most that a feature may reach, not "
                f"{self.strength}."
            )
        if self.mode == "ablate_block" and self.dictionary.captured != "diff":
            raise RevelioError(
                "Mode ablate_block needs an SAE that reads output minus input, for only that is what a block "
                "contributes; this one reads the output: load it with captured = diff, or take another mode."
            )
        own_scale = self.dictionary.normalise != "none" or self.dictionary.modulation is not None
        if self.unit == "norm" and self.puts_in and own_scale:
            raise RevelioError(
                "This dictionary scales every activation by itself, so a strength in norms means nothing; "
                "choose the unit mean or code."
            )


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


def side_of(role: str) -> str:
    """ "cond2" is of the side "cond"."""
    return role.rstrip("0123456789")


def checked_percents(start: float, end: float) -> None:
    """Raise RevelioError unless they are a range of the schedule."""
    if not 0.0 <= start <= end <= 1.0:
        raise RevelioError(
            f"Start and end percent must be from 0 to 1 with start before end, not {start} and {end}."
        )


def checked_mask(mask: Tensor) -> Tensor:
    """A mask as float32 [batch, h, w] in 0..1; RevelioError when it is none."""
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or 0 in mask.shape:
        raise RevelioError(
            f"What is connected as the mask is none: its sizes are {' x '.join(map(str, mask.shape))}, not "
            "batch x height x width; connect a mask."
        )
    mask = mask.detach().to(torch.float32)
    if not bool(mask.isfinite().all()):
        raise RevelioError("A mask must hold numbers from 0 to 1, but this one has some that are not finite.")
    return mask.clamp(0.0, 1.0)  # resizing and blurring overshoot a little
