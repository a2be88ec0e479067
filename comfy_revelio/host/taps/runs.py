"""What one sampling run knows: its schedule, who is positive and who negative, how far it has come.

A run begins when a guider starts to sample and ends when it returns or fails. Everything that a model
call needs to say "step 7, positive prompt, 34 % of the schedule" is derived here from sigmas and from
the conditionings' identities; never from row order, and never by counting calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...trace.sampler_steps import SAME_SIGMA

PERCENT_BISECTIONS = 24

Conditionings = Mapping[str, Sequence[Mapping[str, Any]] | None]


@dataclass(frozen=True)
class ModelCall:
    """One conditioning's share of one model evaluation.

    role: "cond", "uncond", "cond2" ... as given by the guider.
    step: index into the schedule; evaluation: how many evaluations this role had at that step before.
    sigma, timestep: noise level as the sampler and as the network see it.
    percent: progress in 0..1 as ComfyUI's own start and end percents measure it.
    grid: (height, width) of the token grid, or (frames, height, width) of a video; (1, tokens) of text.
    items: latent batch item of each row.
    asked: how many times the sampler had asked for a prediction before; None outside a sampler.
    """

    role: str
    step: int
    evaluation: int
    sigma: float
    timestep: float
    percent: float
    grid: tuple[int, ...]
    items: tuple[int, ...]
    asked: int | None = None


@dataclass(eq=False)
class Run:
    """State of one sampling run. Made fresh by every run, so nothing carries over to the next.

    sigmas: the schedule. conditionings: gives the guider's `conds` as they are when the model is called.
    """

    sigmas: tuple[float, ...] = ()
    conditionings: Callable[[], Conditionings] = dict
    _roles: dict[str, dict[Hashable, str]] | None = None
    _bases: dict[int, str] = field(default_factory=dict)
    _evaluations: dict[tuple[object, str, int], int] = field(default_factory=dict)
    _percents: dict[float, float] = field(default_factory=dict)
    _timesteps: dict[float, float] = field(default_factory=dict)
    _asked: int = -1
    _asking: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        return self  # options are deep-copied by some ComfyUI versions; a run is one thing

    @property
    def total_steps(self) -> int:
        """Steps of the schedule; at least 1."""
        return max(len(self.sigmas) - 1, 1)

    def step_of(self, sigma: float) -> int:
        return step_of(sigma, self.sigmas)

    def role_of(self, kind: int, uuid: Hashable) -> str:
        """Role of one chunk of the batch: its `cond_or_uncond` entry and the uuid of its conditioning.

        The uuid tells, whatever order a guider hands its conditionings over in. Only where the sampler has
        copied one from the positive to the negative side (areas, controls) do both sides know it; then the
        kind decides, by what it meant for the other chunks or else by ComfyUI's convention.
        """
        with self._lock:
            if self._roles is None:
                self._roles = roles_of(self.conditionings())
            bases = [base for base, names in self._roles.items() if uuid in names]
            if len(bases) == 1:
                self._bases[kind] = bases[0]
            elif not bases:
                return {0: "cond", 1: "uncond"}.get(kind, f"cond{kind}")
            base = bases[0] if len(bases) == 1 else self._bases.get(kind, "uncond" if kind == 1 else "cond")
            return self._roles[base][uuid]

    @property
    def asked(self) -> int | None:
        """How many times the sampler had asked for a prediction before this one; None outside of one."""
        return self._asked if self._asking else None

    @contextmanager
    def prediction(self) -> Iterator[None]:
        """The time in which the sampler waits for one prediction, which may take many model calls.

        Every tap of the model opens it; only the outermost counts.
        """
        if self._asking:
            yield
            return
        self._asked, self._asking = self._asked + 1, True
        try:
            yield
        finally:
            self._asking = False

    def next_evaluation(self, tap: object, role: str, step: int) -> int:
        """Number of earlier evaluations that `tap` saw of `role` at `step`."""
        with self._lock:
            seen = self._evaluations.get((tap, role, step), 0)
            self._evaluations[(tap, role, step)] = seen + 1
        return seen

    def percent_of(self, sigma: float, model_sampling: Any) -> float:
        if sigma not in self._percents:
            self._percents[sigma] = percent_of(sigma, model_sampling)
        return self._percents[sigma]

    def timestep_of(self, sigma: float, sigmas: Any, model_sampling: Any) -> float:
        """`sigmas`: the one-dimensional tensor that holds `sigma`, on the model's device."""
        if sigma not in self._timesteps:
            self._timesteps[sigma] = float(model_sampling.timestep(sigmas[:1]).flatten()[0])
        return self._timesteps[sigma]


def step_of(sigma: float, schedule: Sequence[float]) -> int:
    """The step whose interval of the schedule holds `sigma`.

    A schedule of n + 1 sigmas has n steps; step i runs from `schedule[i]` to `schedule[i + 1]`. Samplers
    of second order evaluate inside the interval, and that belongs to the step they are taking.
    """
    last = max(len(schedule) - 2, 0)
    for index, point in enumerate(schedule[: last + 1]):
        if abs(sigma - point) <= SAME_SIGMA * max(abs(point), abs(sigma)):
            return index
    for index in range(last + 1):
        if index + 1 < len(schedule):
            low, high = sorted((schedule[index], schedule[index + 1]))
            if low < sigma < high:
                return index
    if not schedule:
        return 0
    return min(range(last + 1), key=lambda index: abs(schedule[index] - sigma))


def percent_of(sigma: float, model_sampling: Any) -> float:
    """Inverse of `model_sampling.percent_to_sigma`, so that 0.3 here is 0.3 in every other node.

    Bisection, because only the forward direction is part of every model's sampling class.
    """
    if sigma <= 0.0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(PERCENT_BISECTIONS):
        middle = (low + high) / 2
        if float(model_sampling.percent_to_sigma(middle)) >= sigma * (1 - SAME_SIGMA):
            low = middle
        else:
            high = middle
    return low


def roles_of(conditionings: Conditionings) -> dict[str, dict[Hashable, str]]:
    """Names of a guider's conditionings: {"cond": {uuid: role}, "uncond": {uuid: role}}.

    Positive ones are "cond", "cond2" ... in their order, negative ones "uncond", "uncond2" ...; the guider's
    own `positive` and `negative` come first.
    """
    roles: dict[str, dict[Hashable, str]] = {"cond": {}, "uncond": {}}
    first = {"positive": 0, "negative": 0}
    for name in sorted(conditionings, key=lambda name: first.get(name, 1)):
        base = "uncond" if "negative" in name or "uncond" in name else "cond"
        for conditioning in conditionings[name] or ():
            uuid = conditioning.get("uuid")
            if uuid is not None and uuid not in roles[base]:
                number = len(roles[base]) + 1
                roles[base][uuid] = base if number == 1 else f"{base}{number}"
    return roles


def roles_of_chunks(options: Mapping[str, Any], run: Run) -> list[str]:
    """Roles of the batch's chunks in one model call, in the batch's order."""
    kinds = list(options.get("cond_or_uncond") or [0])
    uuids = list(options.get("uuids") or [None] * len(kinds))
    return [run.role_of(int(kind), uuid) for kind, uuid in zip(kinds, uuids, strict=True)]
