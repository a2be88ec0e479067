"""Roles ("cond", "uncond", "cond2"): which side of guidance each row of a batch belongs to.

The uuid of a row's conditioning determines its role. The order of rows cannot, because ComfyUI and guiders
of other packs evaluate the positive and negative sides in either order, in one model call or in several.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

Conditionings = Mapping[str, Sequence[Mapping[str, Any]] | None]
"""A guider's `conds`: conditionings under "positive", "negative" and any other name."""


class Roles:
    """Finds the roles in one sampling run from the guider's conditionings at the first model call."""

    def __init__(self, conditionings: Callable[[], Conditionings] = dict) -> None:
        self._conditionings = conditionings
        self._named: dict[str, dict[Hashable, str]] | None = None
        self._side_of_kind: dict[int, str] = {}
        self._lock = threading.Lock()

    def of_chunks(self, options: Mapping[str, Any]) -> list[str]:
        """Return the role of each conditioning's chunk of rows in one model call's batch, in order.

        options: the call's transformer options; `cond_or_uncond` and `uuids` have one entry per chunk.
        """
        kinds = list(options.get("cond_or_uncond") or [0])
        uuids = list(options.get("uuids") or [None] * len(kinds))
        return [self._role_of(int(kind), uuid) for kind, uuid in zip(kinds, uuids, strict=True)]

    def _role_of(self, kind: int, uuid: Hashable) -> str:
        """Return the role of a chunk, from its `cond_or_uncond` entry `kind` and its conditioning's uuid.

        The uuid decides, unless both sides have this conditioning: samplers copy some (areas, controls) from
        the positive to the negative side. Then `kind` decides: it means the same side as in earlier chunks,
        or else follows ComfyUI's convention (0 is positive, 1 is negative).
        """
        with self._lock:
            if self._named is None:
                self._named = roles_of(self._conditionings())
            sides = [side for side, names in self._named.items() if uuid in names]
            if not sides:
                return {0: "cond", 1: "uncond"}.get(kind, f"cond{kind}")
            if len(sides) == 1:
                self._side_of_kind[kind] = sides[0]
                return self._named[sides[0]][uuid]
            side = self._side_of_kind.get(kind, "uncond" if kind == 1 else "cond")
            return self._named[side][uuid]


def roles_of(conditionings: Conditionings) -> dict[str, dict[Hashable, str]]:
    """Return the roles of a guider's conditionings: {"cond": {uuid: role}, "uncond": {uuid: role}}.

    Positive conditionings are "cond", "cond2" ... in order, negative ones "uncond", "uncond2" ... The lists
    "positive" and "negative" are numbered before all others.

    >>> roles_of({"negative": [{"uuid": 1}], "positive": [{"uuid": 2}, {"uuid": 3}]})
    {'cond': {2: 'cond', 3: 'cond2'}, 'uncond': {1: 'uncond'}}
    """
    roles: dict[str, dict[Hashable, str]] = {"cond": {}, "uncond": {}}
    first = {"positive": 0, "negative": 0}
    for name in sorted(conditionings, key=lambda name: first.get(name, 1)):
        side = "uncond" if "negative" in name or "uncond" in name else "cond"
        for conditioning in conditionings[name] or ():
            uuid = conditioning.get("uuid")
            if uuid is not None and uuid not in roles[side]:
                number = len(roles[side]) + 1
                roles[side][uuid] = side if number == 1 else f"{side}{number}"
    return roles
