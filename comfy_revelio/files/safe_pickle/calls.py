"""Safe replacements for the functions that pickles of tensors call.

Unlike the original, each replacement works on inert values and checks its arguments. Replacements that need
the file are in `machine`.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .values import Refused, View, are_sizes, broken, is_shape, view_of

_FORMS = {
    "b1": "<?", "u1": "<B", "i1": "<b", "i2": "<h", "i4": "<i", "i8": "<q",
    "f2": "<e", "f4": "<f", "f8": "<d",
}  # fmt: skip


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, _: Any, *rest: Any) -> View:
    if not 1 <= len(rest) <= 2 or any(rest):  # rest: hooks, and metadata such as the conjugate bit
        raise broken("it holds an unsupported kind of tensor")
    return view_of(storage, offset, size, stride)


def _parameter(tensor: Any, *_: Any) -> View:
    if type(tensor) is not View:
        raise broken("one of its parameters is not a plain tensor")
    return tensor


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _no_bytes() -> bytes:
    """Return b"", which pickle protocol 2 writes as the call bytes()."""
    return b""


def _size(numbers: Any) -> Any:
    import torch

    if not is_shape(numbers):
        raise broken("a shape in it is malformed")
    return torch.Size(numbers)


def _device(kind: Any, *index: Any) -> Any:
    import torch

    if type(kind) is not str or len(kind) > 20 or len(index) > 1 or not are_sizes(index):
        raise broken("a device in it is malformed")
    return torch.device(kind, *index)


@dataclass(frozen=True, eq=False)
class NumberType:
    """A NumPy number type."""

    form: str
    """The type's format string for Python's struct module, such as "<f"."""


def _number_type(name: Any, *rest: Any) -> NumberType:
    """Return the number type with a short name such as "f8", in place of numpy.dtype."""
    if type(name) is not str or name not in _FORMS or not all(type(flag) in (bool, int) for flag in rest):
        raise _not_a_number()
    return NumberType(_FORMS[name])


def is_usual(state: Any) -> bool:
    """Whether a NumPy type with this pickled state is little-endian and has no fields or subarrays."""
    return type(state) is tuple and len(state) >= 5 and state[1] in ("<", "|") and not any(state[2:5])


def _number(kind: Any, data: Any = None) -> bool | int | float:
    """Return the plain number in the bytes `data`, which must be exactly one number of the type `kind`."""
    if type(kind) is not NumberType or type(data) is not bytes or len(data) != struct.calcsize(kind.form):
        raise _not_a_number()
    value: bool | int | float = struct.unpack(kind.form, data)[0]
    return value


def _not_a_number() -> Refused:
    return broken("it holds a NumPy value that is not a plain number")


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": view_of,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _ordered_dict,
    "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes,
    "numpy.dtype": _number_type,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
}
"""Function in a pickle -> its replacement, which may raise any exception for arguments torch never writes."""
