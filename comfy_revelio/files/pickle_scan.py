"""Pickles read by a machine that cannot call anything: opcodes in, inert values out.

A pickle is a program, and Python's own unpickler calls whatever the program names. The machine
here knows only the opcodes that saved tensors and plain values need. A name stays a word, a
tensor a place in the file, and the few calls that torch writes are carried out here, by name,
with checked arguments. Work and memory are bounded by what the file really holds.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import Any

from . import pickle_numbers

MAX_TEXT_BYTES = 16 * 1024 * 1024
_MAX_ITEMS = 1_000_000  # opcodes in a file, and values in what they describe
_MAX_DEPTH = 64
_MAX_RANK = 8
_MAX_NUMBER = 2**48

_ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
_STORAGE_TYPES = {
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
_CALLS = frozenset({
    "_codecs.encode",
    "collections.OrderedDict",
    "copyreg.__newobj__", "copy_reg.__newobj__",
    "copyreg._reconstructor", "copy_reg._reconstructor",
    "torch.Size", "torch.device",
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    "torch.storage._load_from_bytes",
    pickle_numbers.TYPE, *pickle_numbers.SCALARS,
})  # fmt: skip
_OBJECT = frozenset({"builtins.object", "__builtin__.object"})
_NO_BYTES = frozenset({"builtins.bytes", "__builtin__.bytes"})  # called by protocol 2 for b""

_CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False}
# Opcodes by the width of the number that follows them.
_COUNTS = {pickle.BININT1: 1, pickle.BININT2: 2}
_TEXTS = {pickle.SHORT_BINUNICODE: 1, pickle.BINUNICODE: 4}
_BYTES = {pickle.SHORT_BINBYTES: 1, pickle.BINBYTES: 4, pickle.BINBYTES8: 8}
_PUTS = {pickle.BINPUT: 1, pickle.LONG_BINPUT: 4}
_GETS = {pickle.BINGET: 1, pickle.LONG_BINGET: 4}
# Opcodes by the number of values that they take from the stack.
_TUPLES = {pickle.EMPTY_TUPLE: 0, pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}


class Refused(Exception):
    """Why a file is not read, in words that follow the file's name."""


def broken(reason: str) -> Refused:
    return Refused(f"is not a whole file of saved tensors: {reason}; get the file again.")


@dataclass(frozen=True, eq=False)
class Span:
    """Bytes that stay in the file until the whole pickle is checked."""

    start: int
    length: int
    crc: int | None = None


@dataclass(eq=False)
class Storage:
    """The numbers behind one or more tensors; `span` tells where they are."""

    dtype: str
    count: int
    span: Span | None = None

    @property
    def nbytes(self) -> int:
        return self.count * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that lies inside its storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Name:
    """What a pickle calls a class or a function: a word, never the thing itself."""

    text: str


@dataclass(eq=False)
class Stub:
    """An object of a class that was not loaded: the class's full name and the object's attributes."""

    name: str
    state: dict[str, Any] = field(default_factory=dict)


class Machine:
    """Reads the pickles of one file; `unpack` turns the bytes of a saved storage into the Storage."""

    def __init__(
        self, file: BufferedIOBase, stubs: frozenset[str], unpack: Callable[[Span], Storage]
    ) -> None:
        self._file = file
        self._stubs = stubs
        self._unpack = unpack
        self._items = 0
        self._text_bytes = 0

    def spend(self, items: int) -> None:
        """Count work against the limit of this file."""
        self._items += items
        if self._items > _MAX_ITEMS:
            raise broken("it holds far more parts than a dictionary has")

    def load(self, start: int, end: int, storages: dict[str, Storage] | None = None) -> tuple[Any, int]:
        """The value of the pickle at `start`, and where the pickle ends, at most at `end`.

        Storages that the pickle names by key are noted in `storages`; without it there may be none.
        """
        window = _Window(self._file, start, end)
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def top(at: int) -> list[Any]:
            if not 0 <= at <= len(stack):
                raise broken("its pickle is malformed")
            items = stack[at:]
            del stack[at:]
            return items

        while True:
            op = window.take(1)
            self.spend(1)
            if op in _PUTS:
                memo[window.number(_PUTS[op])] = stack[-1]
            elif op == pickle.MEMOIZE:
                memo[len(memo)] = stack[-1]
            elif op in _GETS:
                stack.append(memo[window.number(_GETS[op])])
            elif op in _TEXTS:
                stack.append(self._text(window, _TEXTS[op]))
            elif op in _BYTES:
                stack.append(window.skip(window.number(_BYTES[op])))
            elif op in _COUNTS:
                stack.append(window.number(_COUNTS[op]))
            elif op == pickle.BININT:
                stack.append(int.from_bytes(window.take(4), "little", signed=True))
            elif op == pickle.LONG1:
                stack.append(_long(window))
            elif op == pickle.BINFLOAT:
                stack.append(struct.unpack(">d", window.take(8))[0])
            elif op in _CONSTANTS:
                stack.append(_CONSTANTS[op])
            elif op == pickle.MARK:
                marks.append(len(stack))
            elif op in _TUPLES:
                stack.append(tuple(top(len(stack) - _TUPLES[op])))
            elif op == pickle.TUPLE:
                stack.append(tuple(top(marks.pop())))
            elif op == pickle.EMPTY_LIST:
                stack.append([])
            elif op == pickle.EMPTY_DICT:
                stack.append({})
            elif op == pickle.APPEND:
                _extend(stack, top(len(stack) - 1))
            elif op == pickle.APPENDS:
                _extend(stack, top(marks.pop()))
            elif op == pickle.SETITEM:
                _set_items(stack, top(len(stack) - 2))
            elif op == pickle.SETITEMS:
                _set_items(stack, top(marks.pop()))
            elif op == pickle.GLOBAL:
                module, name = window.line(), window.line()
                stack.append(self._name(module, name))
            elif op == pickle.STACK_GLOBAL:
                module, name = top(len(stack) - 2)
                stack.append(self._name(module, name))
            elif op == pickle.REDUCE:
                called, arguments = top(len(stack) - 2)
                stack.append(self._call(called, arguments))
                window.resume()
            elif op == pickle.NEWOBJ:
                called, arguments = top(len(stack) - 2)
                stack.append(self._stub(called, *arguments))
            elif op == pickle.BUILD:
                target, state = top(len(stack) - 2)
                self._build(target, state)
                stack.append(target)
            elif op == pickle.BINPERSID:
                stack.append(_storage(stack.pop(), storages))
            elif op == pickle.PROTO:
                if window.number(1) > 5:
                    raise broken("its pickle is of an unknown version")
            elif op == pickle.FRAME:
                window.check(window.number(8))
            elif op == pickle.STOP:
                value = stack.pop()
                if stack or marks:
                    raise broken("its pickle is malformed")
                return value, window.position
            else:
                raise Refused(
                    f"uses the pickle instruction {op!r}, which saved tensors do not need, "
                    "so it was not read; save it again with torch.save."
                )

    def _text(self, window: _Window, width: int) -> str:
        length = window.number(width)
        self._text_bytes += length
        if self._text_bytes > MAX_TEXT_BYTES:
            raise broken("it holds far more text than a dictionary has")
        return window.take(length).decode()

    def _name(self, module: Any, name: Any) -> Name:
        if type(module) is not str or type(name) is not str:
            raise broken("its pickle is malformed")
        text = f"{module}.{name}"
        known = (_CALLS, _STORAGE_TYPES, _OBJECT, _NO_BYTES, self._stubs)
        if not any(text in names for names in known) and _dtype(text) is None:
            shown = re.sub(r"[^\w.<>-]", "?", text[:120], flags=re.ASCII)
            raise Refused(
                f"asks for {shown}, which could run code, so it was not read; "
                "use a file that holds only tensors and plain values."
            )
        return Name(text)

    def _call(self, called: Any, arguments: Any) -> Any:
        """What torch's few helpers make of these arguments, without calling them."""
        name = called.text if type(called) is Name else ""
        if type(arguments) is not tuple or len(arguments) > 8:
            name = ""
        if name == "torch._utils._rebuild_tensor":
            return _view(*arguments)
        if name == "torch._utils._rebuild_tensor_v2":
            if not 6 <= len(arguments) <= 7 or any(arguments[5:]):  # hooks, and bits for conjugates
                raise broken("one of its tensors is no plain tensor")
            return _view(*arguments[:4])
        if name == "torch._utils._rebuild_parameter":
            if type(arguments[0]) is not View:
                raise broken("one of its parameters is no plain tensor")
            return arguments[0]
        if name == "torch.storage._load_from_bytes":
            if type(arguments[0]) is not Span:
                raise broken("one of its tensors is stored in an unknown form")
            return self._unpack(arguments[0])
        if name == "collections.OrderedDict" and not arguments:
            return OrderedDict()
        if name in _NO_BYTES and not arguments:
            return b""
        if name == pickle_numbers.TYPE or name in pickle_numbers.SCALARS:
            make = pickle_numbers.number_type if name == pickle_numbers.TYPE else pickle_numbers.number
            if (made := make(*arguments)) is None:
                raise broken("it holds a value of NumPy's that is no plain number")
            return made
        if name == "torch.Size":
            return _size(*arguments)
        if name == "torch.device":
            return _device(*arguments)
        if name == "_codecs.encode":
            return self._encoded(*arguments)
        if name.endswith("._reconstructor"):
            cls, base, state = arguments
            if type(base) is Name and base.text in _OBJECT and state is None:
                return self._stub(cls)
        elif name.endswith(".__newobj__"):
            return self._stub(*arguments)
        elif name in self._stubs and not arguments:
            return Stub(name)
        raise broken("it makes a call that saved tensors do not need")

    def _stub(self, cls: Any, *arguments: Any) -> Stub:
        if type(cls) is not Name or cls.text not in self._stubs or arguments:
            raise broken("it makes an object that saved tensors do not need")
        return Stub(cls.text)

    def _build(self, target: Any, state: Any) -> None:
        """Attributes: of a Stub, or the one that torch gives to a state dict."""
        if type(target) is OrderedDict and type(state) is dict and len(state) == 1 and "_metadata" in state:
            vars(target).update(state)
            return
        if type(target) is pickle_numbers.NumberType and pickle_numbers.is_usual(state):
            return
        parts = state if type(state) is tuple and len(state) == 2 else (state,)
        for part in parts:
            if part is None:
                continue
            if type(target) is not Stub or type(part) is not dict:
                raise broken("it gives attributes to something that has none")
            self.spend(len(part))
            if not all(type(key) is str for key in part):
                raise broken("it holds an attribute without a name")
            target.state.update(part)

    def _encoded(self, text: Any, encoding: Any) -> bytes:
        """Bytes as protocol 2 writes them."""
        if type(text) is not str or encoding != "latin1":
            raise broken("it holds text in an unknown encoding")
        self._text_bytes += len(text)
        if self._text_bytes > MAX_TEXT_BYTES:
            raise broken("it holds far more text than a dictionary has")
        return text.encode("latin1")


class _Window:
    """A part of the file, read forward and never past its end."""

    def __init__(self, file: BufferedIOBase, position: int, end: int) -> None:
        self._file = file
        self._end = end
        self.position = position
        self.resume()

    def resume(self) -> None:
        """Go on where this window was, after something else has read the file."""
        self._file.seek(self.position)

    def check(self, length: int) -> None:
        if length > self._end - self.position:
            raise broken("it is cut short, or a length in it is wrong")

    def take(self, length: int) -> bytes:
        self.check(length)
        data = self._file.read(length)
        if len(data) != length:
            raise broken("it is cut short")
        self.position += length
        return data

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        data = self._file.readline(min(512, self._end - self.position))
        if not data.endswith(b"\n"):
            raise broken("its pickle is malformed")
        self.position += len(data)
        return data[:-1].decode()

    def skip(self, length: int) -> Span:
        self.check(length)
        span = Span(self.position, length)
        self.position += length
        self.resume()
        return span


def rebuilt(value: Any, leaf: Callable[[View | Span], Any]) -> Any:
    """A copy of what the machine read, with `leaf` in place of every tensor and every bytes object.

    Sharing between containers is undone, so a copy that is small and shallow is a plain tree.
    """
    import torch

    left = _MAX_ITEMS

    def table(items: dict[Any, Any], depth: int) -> dict[Any, Any]:
        return {key: copy(item, depth) for key, item in items.items()}

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise broken("it repeats its parts far too often")
        if depth > _MAX_DEPTH:
            raise broken("it is nested too deeply")
        kind = type(value)
        if value is None or kind in (bool, int, float, str, bytes, torch.device, torch.Size):
            return value
        if kind in (View, Span):
            return leaf(value)
        depth += 1
        if kind is list:
            return [copy(item, depth) for item in value]
        if kind is tuple:
            return tuple([copy(item, depth) for item in value])
        if kind is dict:
            return table(value, depth)
        if kind is OrderedDict:
            ordered = OrderedDict(table(value, depth))
            vars(ordered).update(table(vars(value), depth))
            return ordered
        if kind is Stub:
            return Stub(value.name, table(value.state, depth))
        dtype = _dtype(value.text) if kind is Name else None
        if dtype is None:
            raise broken("it holds a class or a storage where a value belongs")
        return dtype

    return copy(value, 0)


def _dtype(name: str) -> Any:
    """torch's type of this full name, looked up without importing anything; None if it is none."""
    import torch

    found = vars(torch).get(name.removeprefix("torch.")) if name.startswith("torch.") else None
    return found if isinstance(found, torch.dtype) else None


def _storage(identity: Any, storages: dict[str, Storage] | None) -> Storage:
    """The storage of this key; torch writes ("storage", type, key, device, count, and perhaps None)."""
    if storages is None or type(identity) is not tuple or not 5 <= len(identity) <= 6:
        raise broken("it refers to something outside of it")
    what, kind, key, _, count, *old = identity
    dtype = _STORAGE_TYPES.get(kind.text) if type(kind) is Name else None
    if what != "storage" or type(key) is not str or not _numbers((count,)) or any(old):
        raise broken("the storage of a tensor is malformed")
    if dtype is None:
        raise broken("a tensor holds numbers of an unknown type")
    storage = storages.setdefault(key, Storage(dtype, count))
    if (storage.dtype, storage.count) != (dtype, count):
        raise broken("two tensors disagree about their storage")
    return storage


def _view(storage: Any, offset: Any, size: Any, stride: Any) -> View:
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        raise broken("one of its tensors is malformed")
    if len(size) > _MAX_RANK or len(stride) != len(size) or not _numbers((offset, *size, *stride)):
        raise broken("the shape of a tensor is malformed")
    count = math.prod(size)
    steps = [(n - 1, step) for n, step in zip(size, stride, strict=True)] if count else [(-1, 1)]
    if offset + sum(n * step for n, step in steps) >= storage.count:
        raise broken("a tensor reaches past the end of its storage")
    if count > storage.count or any(n > 0 and step == 0 for n, step in steps):
        raise broken("a tensor repeats its numbers, as an expanded one does, which is not supported")
    return View(storage, offset, size, stride)


def _size(numbers: Any) -> Any:
    import torch

    if type(numbers) is not tuple or len(numbers) > _MAX_RANK or not _numbers(numbers):
        raise broken("a shape in it is malformed")
    return torch.Size(numbers)


def _device(kind: Any, *index: Any) -> Any:
    import torch

    if type(kind) is not str or len(kind) > 20 or len(index) > 1 or not _numbers(index):
        raise broken("a device in it is malformed")
    return torch.device(kind, *index)


def _numbers(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < _MAX_NUMBER for value in values)


def _long(window: _Window) -> int:
    length = window.number(1)
    if length > 16:
        raise broken("a number in it is far too long")
    return int.from_bytes(window.take(length), "little", signed=True)


def _extend(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise broken("it adds items to something that is no list")
    stack[-1].extend(items)


def _set_items(stack: list[Any], items: list[Any]) -> None:
    table = stack[-1]
    if type(table) not in (dict, OrderedDict) or len(items) % 2:
        raise broken("it adds entries to something that is no table")
    for key, item in zip(items[::2], items[1::2], strict=True):
        # Longer numbers can be made to share one hash, and tuples to take for ever to hash.
        plain = type(key) in (str, bool) or key is None or (type(key) is int and key.bit_length() <= 60)
        if not plain:
            raise broken("a table in it has keys that are neither text nor small numbers")
        table[key] = item
