"""An intervention: what to change, how much, where, when and on which side of guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError, checked_choice
from .modes import ADDS_AMOUNT, MODES, READS_CODES, UNITS, Mode, Unit
from .selection import Selection

Placement = Literal["usual", "everywhere"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
Side = Literal["cond", "uncond", "both"]
SIDES: tuple[Side, ...] = get_args(Side)
Role = Literal[Side, "mirrored"]
ROLES: tuple[Role, ...] = get_args(Role)
Ramp = Literal["none", "fade in", "fade out", "fade in and out"]
RAMPS: tuple[Ramp, ...] = get_args(Ramp)


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change to the features at one hook point, checked on creation. Formulas: modes.py and apply.py."""

    dictionary: Dictionary
    selection: Selection
    """Features and concepts with their weights; weight 0 leaves a feature alone."""
    strength: float
    mode: Mode = "push"
    place: Placement = "usual"
    """Where mode "push" with a strength above 0 adds single features: "usual" follows their mean maps, or
    adds everywhere if the dictionary has none."""
    mask: Tensor | None = None
    """[h, w], [1, h, w] or [B, h, w] in 0..1, by which the change is multiplied. With a mask, single features
    ignore `place`. If there are fewer masks than batch items, the masks repeat."""
    start_percent: float = 0.0
    """Where in the schedule the change begins, 0..1, inclusive. If it equals end_percent, nothing changes."""
    end_percent: float = 1.0
    """Where in the schedule the change ends, 0..1, exclusive unless it is 1."""
    role: Role = "cond"
    """Side of guidance to change; "mirrored" changes cond, and uncond with the opposite sign."""
    unit: Unit = "mean"
    """What a strength of 1 stands for in modes that add an amount."""
    ramp: Ramp = "none"
    """How the change varies linearly from start to end: "fade in" starts at nothing, "fade out" ends at
    nothing, "fade in and out" starts and ends at nothing and is full in the middle."""
    concept_maps: dict[object, tuple[Tensor, ...]] = field(init=False, repr=False, default_factory=dict)
    """Cache: (concept, grid, device) -> the concept's maps."""

    def __post_init__(self) -> None:
        checked_choice("mode", self.mode, MODES)
        checked_choice("place", self.place, PLACEMENTS)
        checked_choice("role", self.role, ROLES)
        checked_choice("unit", self.unit, UNITS)
        checked_choice("ramp", self.ramp, RAMPS)
        check_amount(self.strength, self.start_percent, self.end_percent)
        moves_concepts = (self.mode, self.place, self.unit) == ("push", "usual", "mean")
        concepts = self.dictionary.concepts if moves_concepts else None
        object.__setattr__(self, "selection", self.selection.resolved(self.dictionary, concepts))
        self.dictionary.feature_index(self.selection.features)
        self._check_mode()
        if self.selection.concepts and not moves_concepts:
            raise RevelioError(
                'A concept has its own map and amount: it needs mode push, "where to add" usual and unit '
                f'mean, not mode {self.mode}, "where to add" {self.place} and unit {self.unit}; change '
                "these, or select features instead."
            )
        if self.needs_stats and self.active and self.dictionary.stats is None:
            raise RevelioError(
                "This dictionary has no mean activations, so the amount to add is unknown; use unit code, "
                "mode scale or a negative strength, or a dictionary saved with feature statistics."
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
    def adds_amount(self) -> bool:
        """Whether the mode adds an amount counted in units, and not only a multiple of the codes."""
        return self.mode in ADDS_AMOUNT or (self.mode == "push" and self.strength > 0.0)

    @property
    def reads_codes(self) -> bool:
        """Whether the change depends on the tokens' own codes."""
        reads = self.mode in READS_CODES or (self.mode == "push" and self.strength < 0.0)
        return reads or bool(self.selection.concepts)

    @property
    def needs_stats(self) -> bool:
        """Whether the change depends on the features' mean activations."""
        return self.adds_amount and self.unit == "mean" and bool(self.selection.features)

    def applies(self, role: str, percent: float) -> bool:
        """Whether the intervention acts on a role ("cond2" counts as cond) at a point of the schedule."""
        acts = self.role in ("both", "mirrored") or side_of(role) == self.role
        return self.active and acts and in_range(percent, self.start_percent, self.end_percent)

    def factor(self, role: str, percent: float) -> float:
        """Return the factor, -1 to 1, that multiplies the change for a role at a point of the schedule.

        >>> from comfy_revelio.dictionary import Activation, Dictionary
        >>> eye, zero = torch.eye(2), torch.zeros(2)
        >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
        >>> fading = Intervention(sae, Selection((1,)), strength=-1.0, role="mirrored", ramp="fade out")
        >>> fading.factor("cond", 0.25), fading.factor("uncond", 0.25)
        (0.75, -0.75)
        """
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
                "Mode clamp needs a strength above 0 (the highest value that a feature may reach), not "
                f"{self.strength}."
            )
        if self.mode == "ablate_block" and self.dictionary.captured != "diff":
            raise RevelioError(
                "Mode ablate_block needs an SAE that reads output minus input, which is what a block "
                "contributes, but this one reads the output; load it with captured = diff, or choose another "
                "mode."
            )
        own_scale = self.dictionary.normalise != "none" or self.dictionary.modulation is not None
        if self.unit == "norm" and self.adds_amount and own_scale:
            raise RevelioError(
                "This dictionary scales every activation, so a strength in norms has no meaning for it; "
                "choose unit mean or code."
            )


@dataclass(frozen=True)
class TokenContext:
    """Where tokens [B, T, D] come from: role, grid, batch items and point of the schedule."""

    role: str = "cond"
    """"cond", "uncond", "cond2" and so on."""
    grid: tuple[int, int] = (1, 1)
    """(height, width), with height * width = T."""
    items: slice | tuple[int, ...] | None = None
    """The batch item number of each of the B rows; None means 0 to B - 1."""
    percent: float = 0.0
    """Progress through the schedule, 0..1."""
    timestep: float = 0.0
    """The model's timestep, for dictionaries that depend on it."""

    def item_numbers(self, rows: int) -> list[int]:
        """Return the batch item number of each of `rows` rows of tokens."""
        if self.items is None:
            return list(range(rows))
        if isinstance(self.items, slice):
            start, step = self.items.start or 0, self.items.step or 1
            numbers = list(range(start, start + rows * step, step))
        else:
            numbers = list(self.items)
        if len(numbers) != rows:
            raise RevelioError(f"{rows} rows of tokens need one batch item number each, not {len(numbers)}.")
        return numbers


def side_of(role: str) -> str:
    """Return the side of guidance, "cond" or "uncond", that a role is on.

    >>> side_of("cond2")
    'cond'
    """
    return role.rstrip("0123456789")


def in_range(percent: float, start: float, end: float) -> bool:
    """Whether a point of the schedule is in a range: start is inclusive, end is exclusive unless it is 1."""
    return start <= percent and (percent < end or end == 1.0)


def check_amount(strength: float, start: float, end: float) -> None:
    """Raise RevelioError unless the strength is finite and start to end is a range within 0..1."""
    if not math.isfinite(strength):
        raise RevelioError(f"The strength must be a finite number, not {strength}.")
    if not 0.0 <= start <= end <= 1.0:
        raise RevelioError(
            f"Start and end percent must be from 0 to 1 with start before end, not {start} and {end}."
        )


def checked_mask(mask: Tensor) -> Tensor:
    """Return a mask [h, w] or [batch, h, w] as float32 [batch, h, w] in 0..1; raise for anything else."""
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or 0 in mask.shape:
        raise RevelioError(
            f"The mask has shape {' x '.join(map(str, mask.shape))}; expected batch x height x width. "
            "Connect a MASK output."
        )
    mask = mask.detach().to(torch.float32)
    if not bool(mask.isfinite().all()):
        raise RevelioError("The mask has values that are not finite; connect a mask with values from 0 to 1.")
    return mask.clamp(0.0, 1.0)  # resizing and blurring overshoot a little
