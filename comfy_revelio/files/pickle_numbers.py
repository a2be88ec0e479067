"""NumPy's single numbers in a pickle, such as the learning rate in a training log, read without NumPy."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

TYPE = "numpy.dtype"
SCALARS = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})

_FORMS = {
    "b1": "<?", "u1": "<B", "i1": "<b", "i2": "<h", "i4": "<i", "i8": "<q",
    "f2": "<e", "f4": "<f", "f8": "<d",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class NumberType:
    """What a pickle calls a type of NumPy's: how its numbers lie in bytes, for struct."""

    form: str


def number_type(name: Any, *rest: Any) -> NumberType | None:
    """The type of this short name ("f8"), as numpy.dtype is called in pickles; None if it is no number's."""
    plain = type(name) is str and all(type(flag) in (bool, int) for flag in rest)
    return NumberType(_FORMS[name]) if plain and name in _FORMS else None


def is_usual(state: Any) -> bool:
    """Whether this state of a type says little-endian, without fields or subarrays."""
    return type(state) is tuple and len(state) >= 5 and state[1] in ("<", "|") and not any(state[2:5])


def number(kind: Any, data: Any = None) -> bool | int | float | None:
    """The number in these bytes as a plain one; None unless they are exactly one number of the type."""
    if type(kind) is not NumberType or type(data) is not bytes or len(data) != struct.calcsize(kind.form):
        return None
    value: bool | int | float = struct.unpack(kind.form, data)[0]
    return value
