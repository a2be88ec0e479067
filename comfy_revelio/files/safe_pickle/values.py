"""The inert values that the machine makes from a pickle: they only describe tensors, bytes and objects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_ITEMS = 1_000_000
"""The maximum number of opcodes in a file, and of values that these opcodes build."""
_MAX_RANK = 8
_MAX_NUMBER = 2**48

_ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
STORAGE_TYPES = {
    "torch.BoolStorage": "bool",
    "torch.ByteStorage": "uint8",
    "torch.CharStorage": "int8",
    "torch.ShortStorage": "int16",
    "torch.IntStorage": "int32",
    "torch.LongStorage": "int64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.storage.UntypedStorage": "uint8",
    "torch.UntypedStorage": "uint8",
}
"""Name of a storage class in a pickle -> dtype of its numbers."""


class Refused(Exception):
    """Raised to refuse a file. The message continues a sentence that begins with the file's name."""


def broken(reason: str) -> Refused:
    return Refused(f"is not a complete file of saved tensors: {reason}; get the file again.")


@dataclass(frozen=True, eq=False)
class Span:
    """A range of bytes that stay in the file until the whole pickle has been checked."""

    start: int
    length: int
    crc: int | None = None


@dataclass(eq=False)
class Storage:
    """The numbers behind one or more tensors."""

    dtype: str
    count: int
    span: Span | None = None
    """Where the numbers are in the file."""

    @property
    def nbytes(self) -> int:
        return self.count * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, eq=False)
class View:
    """A tensor, described as a view of a storage that contains all of the tensor's numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Name:
    """The name of a class or function in a pickle: only text, never the class or function itself."""

    text: str


@dataclass(eq=False)
class Stub:
    """A placeholder for an object whose class is not imported."""

    name: str
    """The full name of the class."""
    state: dict[str, Any] = field(default_factory=dict)
    """The attributes of the object."""


def dtype_called(name: str) -> Any:
    """Return the torch dtype with this full name, or None. The name is only looked up, never imported."""
    import torch

    found = vars(torch).get(name.removeprefix("torch.")) if name.startswith("torch.") else None
    return found if isinstance(found, torch.dtype) else None


def storage_of(identity: Any, storages: dict[str, Storage] | None) -> Storage:
    """Return the storage for a persistent id of torch: ("storage", type, key, device, count[, None])."""
    if storages is None or type(identity) is not tuple or not 5 <= len(identity) <= 6:
        raise broken("it refers to something outside the file")
    what, kind, key, _, count, *old = identity
    dtype = STORAGE_TYPES.get(kind.text) if type(kind) is Name else None
    if what != "storage" or type(key) is not str or not are_sizes((count,)) or any(old):
        raise broken("the storage of a tensor is malformed")
    if dtype is None:
        raise broken("a tensor holds numbers of an unknown type")
    storage = storages.setdefault(key, Storage(dtype, count))
    if (storage.dtype, storage.count) != (dtype, count):
        raise broken("two tensors disagree about their storage")
    return storage


def view_of(storage: Any, offset: Any, size: Any, stride: Any) -> View:
    """Return a View of this storage. offset, stride: counted in numbers, not in bytes."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        raise broken("one of its tensors is malformed")
    if len(stride) != len(size) or not is_shape(size) or not are_sizes((offset, *stride)):
        raise broken("the shape of a tensor is malformed")
    count = math.prod(size)
    steps = [(n - 1, step) for n, step in zip(size, stride, strict=True)] if count else [(-1, 1)]
    if offset + sum(n * step for n, step in steps) >= storage.count:
        raise broken("a tensor reaches past the end of its storage")
    if count > storage.count or any(n > 0 and step == 0 for n, step in steps):
        raise broken("a tensor repeats its numbers, like an expanded tensor, which is not supported")
    return View(storage, offset, size, stride)


def is_shape(value: Any) -> bool:
    return type(value) is tuple and len(value) <= _MAX_RANK and are_sizes(value)


def are_sizes(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < _MAX_NUMBER for value in values)
