"""Read pickles with a machine that turns opcodes into inert values and cannot call what a pickle names.

The machine knows only the opcodes that saved tensors and plain values need. A name remains text, a tensor
becomes a description of where its numbers are in the file, and the few calls that torch writes are carried
out by our own functions, with checked arguments.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedIOBase
from typing import Any

from .calls import CALLS, NumberType, is_usual
from .values import (
    MAX_ITEMS,
    MAX_TEXT_BYTES,
    STORAGE_TYPES,
    Name,
    Refused,
    Span,
    Storage,
    Stub,
    broken,
    dtype_called,
    storage_of,
)


class Machine:
    """Reads all pickles in one file, and limits the total work that they cause."""

    def __init__(
        self, file: BufferedIOBase, stubs: frozenset[str], unpack: Callable[[Span], Storage]
    ) -> None:
        """unpack: returns the Storage that the bytes of a Span contain as a nested file."""
        self._file = file
        self._stubs = stubs
        self._unpack = unpack
        self._items = 0
        self._text_bytes = 0
        self._calls: dict[str, Callable[..., Any]] = {
            **CALLS,
            "torch.storage._load_from_bytes": self._unpacked,
            "_codecs.encode": self._encoded,
        }

    def load(self, start: int, end: int, storages: dict[str, Storage] | None = None) -> tuple[Any, int]:
        """Return the value of the pickle at `start`, and the position (`end` at most) where this pickle ends.

        Storages that the pickle refers to by key are added to `storages`, or refused if `storages` is None.
        """
        window = _Window(self._file, start, end)
        program = _Program(self, window, storages)
        while (opcode := window.take(1)) != pickle.STOP:
            self.spend(1)
            if opcode not in _ACTIONS:
                raise Refused(
                    f"uses the pickle instruction {opcode!r}, which saved tensors do not need, "
                    "so it was not read; save it again with torch.save."
                )
            _ACTIONS[opcode](program)
        return program.result(), window.position

    def spend(self, items: int) -> None:
        """Count `items` more units of work, and refuse the file if its total exceeds the limit."""
        self._items += items
        if self._items > MAX_ITEMS:
            raise broken("it holds far more parts than a dictionary has")

    def spend_text(self, length: int) -> None:
        self._text_bytes += length
        if self._text_bytes > MAX_TEXT_BYTES:
            raise broken("it holds far more text than a dictionary has")

    def name(self, module: Any, name: Any) -> Name:
        """Return the Name of a class or function; refuse names that saved tensors do not need."""
        if type(module) is not str or type(name) is not str:
            raise broken("its pickle is malformed")
        text = f"{module}.{name}"
        known = (self._calls, STORAGE_TYPES, self._stubs)
        if not any(text in names for names in known) and dtype_called(text) is None:
            shown = re.sub(r"[^\w.<>-]", "?", text[:120], flags=re.ASCII)
            raise Refused(
                f"asks for {shown}, which could run code, so it was not read; "
                "use a file that holds only tensors and plain values."
            )
        return Name(text)

    def call(self, called: Any, arguments: Any) -> Any:
        """Call our replacement for the named function with these arguments."""
        name = called.text if type(called) is Name else ""
        if name not in self._calls or type(arguments) is not tuple or len(arguments) > 8:
            raise broken("it makes a call that saved tensors do not need")
        return self._calls[name](*arguments)

    def stub(self, cls: Any, arguments: Any) -> Stub:
        """Return a Stub in place of an object, so that the object's class need not be imported."""
        if type(cls) is not Name or cls.text not in self._stubs or arguments != ():
            raise broken("it makes an object that saved tensors do not need")
        return Stub(cls.text)

    def set_attributes(self, target: Any, state: Any) -> None:
        """Set a Stub's attributes or a state dict's `_metadata`; for a NumPy type, only check the state."""
        if type(target) is OrderedDict and type(state) is dict and len(state) == 1 and "_metadata" in state:
            vars(target).update(state)
            return
        if type(target) is NumberType and is_usual(state):
            return
        if type(target) is not Stub or type(state) is not dict:
            raise broken("it gives attributes to something that has none")
        self.spend(len(state))
        if not all(type(key) is str for key in state):
            raise broken("it holds an attribute without a name")
        target.state.update(state)

    def _unpacked(self, data: Any) -> Storage:
        if type(data) is not Span:
            raise broken("one of its tensors is stored in an unknown form")
        return self._unpack(data)

    def _encoded(self, text: Any, encoding: Any) -> bytes:
        """Return the bytes that pickle protocol 2 writes as latin1 text."""
        if type(text) is not str or encoding != "latin1":
            raise broken("it holds text in an unknown encoding")
        self.spend_text(len(text))
        return text.encode("latin1")


class _Program:
    """The machine's state while it reads one pickle: the stack, the marks in the stack, and the memo."""

    def __init__(self, machine: Machine, window: _Window, storages: dict[str, Storage] | None) -> None:
        self.machine = machine
        self.window = window
        self._storages = storages
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        value = self._stack.pop()
        if self._stack or self._marks:
            raise broken("its pickle is malformed")
        return value

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Remove and return the last `count` values, in the order in which they were pushed."""
        return self._pop_from(len(self._stack) - count)

    def pop_mark(self) -> list[Any]:
        """Remove the last mark; remove and return all values pushed after it."""
        return self._pop_from(self._marks.pop())

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def memoize(self, index: int | None = None) -> None:
        """Memoize the last value, by default at the next index; as a dict, the memo allows large indices."""
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    def text(self, width: int) -> None:
        """Read a length, stored in `width` bytes, and a text of this length; push the text."""
        length = self.window.number(width)
        self.machine.spend_text(length)
        self.push(self.window.take(length).decode())

    def long(self) -> None:
        length = self.window.number(1)
        if length > 16:
            raise broken("a number in it is far too long")
        self.push(int.from_bytes(self.window.take(length), "little", signed=True))

    def extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise broken("it adds items to something that is not a list")
        self._stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        table = self._stack[-1]
        if type(table) not in (dict, OrderedDict) or len(items) % 2:
            raise broken("it adds entries to something that is not a table")
        for key, item in zip(items[::2], items[1::2], strict=True):
            # Longer numbers can be crafted to have equal hashes, and tuples to take forever to hash.
            plain = type(key) in (str, bool) or key is None or (type(key) is int and key.bit_length() <= 60)
            if not plain:
                raise broken("a table in it has keys that are neither text nor small numbers")
            table[key] = item

    def call(self) -> None:
        self.push(self.machine.call(*self.pop(2)))
        self.window.resume()

    def make_object(self) -> None:
        self.push(self.machine.stub(*self.pop(2)))

    def build(self) -> None:
        (state,) = self.pop(1)
        self.machine.set_attributes(self._stack[-1], state)

    def refer(self) -> None:
        self.push(storage_of(self._stack.pop(), self._storages))

    def check_protocol(self) -> None:
        if self.window.number(1) > 5:
            raise broken("its pickle is of an unknown version")

    def _pop_from(self, at: int) -> list[Any]:
        if not 0 <= at <= len(self._stack):
            raise broken("its pickle is malformed")
        items = self._stack[at:]
        del self._stack[at:]
        return items


class _Window:
    """A part of the file that is read forward, and never past the end of the part."""

    def __init__(self, file: BufferedIOBase, position: int, end: int) -> None:
        self._file = file
        self._end = end
        self.position = position
        self.resume()

    def resume(self) -> None:
        """Move the file back to this window's position, after other code has read from the file."""
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


_ACTIONS: dict[bytes, Callable[[_Program], None]] = {
    pickle.PROTO: lambda p: p.check_protocol(),
    pickle.FRAME: lambda p: p.window.check(p.window.number(8)),
    pickle.NONE: lambda p: p.push(None),
    pickle.NEWTRUE: lambda p: p.push(True),
    pickle.NEWFALSE: lambda p: p.push(False),
    pickle.BININT1: lambda p: p.push(p.window.number(1)),
    pickle.BININT2: lambda p: p.push(p.window.number(2)),
    pickle.BININT: lambda p: p.push(int.from_bytes(p.window.take(4), "little", signed=True)),
    pickle.LONG1: lambda p: p.long(),
    pickle.BINFLOAT: lambda p: p.push(struct.unpack(">d", p.window.take(8))[0]),
    pickle.SHORT_BINUNICODE: lambda p: p.text(1),
    pickle.BINUNICODE: lambda p: p.text(4),
    pickle.SHORT_BINBYTES: lambda p: p.push(p.window.skip(p.window.number(1))),
    pickle.BINBYTES: lambda p: p.push(p.window.skip(p.window.number(4))),
    pickle.BINBYTES8: lambda p: p.push(p.window.skip(p.window.number(8))),
    pickle.MARK: lambda p: p.mark(),
    pickle.EMPTY_TUPLE: lambda p: p.push(()),
    pickle.TUPLE1: lambda p: p.push(tuple(p.pop(1))),
    pickle.TUPLE2: lambda p: p.push(tuple(p.pop(2))),
    pickle.TUPLE3: lambda p: p.push(tuple(p.pop(3))),
    pickle.TUPLE: lambda p: p.push(tuple(p.pop_mark())),
    pickle.EMPTY_LIST: lambda p: p.push([]),
    pickle.APPEND: lambda p: p.extend(p.pop(1)),
    pickle.APPENDS: lambda p: p.extend(p.pop_mark()),
    pickle.EMPTY_DICT: lambda p: p.push({}),
    pickle.SETITEM: lambda p: p.set_items(p.pop(2)),
    pickle.SETITEMS: lambda p: p.set_items(p.pop_mark()),
    pickle.MEMOIZE: lambda p: p.memoize(),
    pickle.BINPUT: lambda p: p.memoize(p.window.number(1)),
    pickle.LONG_BINPUT: lambda p: p.memoize(p.window.number(4)),
    pickle.BINGET: lambda p: p.recall(p.window.number(1)),
    pickle.LONG_BINGET: lambda p: p.recall(p.window.number(4)),
    pickle.GLOBAL: lambda p: p.push(p.machine.name(p.window.line(), p.window.line())),
    pickle.STACK_GLOBAL: lambda p: p.push(p.machine.name(*p.pop(2))),
    pickle.REDUCE: lambda p: p.call(),
    pickle.NEWOBJ: lambda p: p.make_object(),
    pickle.BUILD: lambda p: p.build(),
    pickle.BINPERSID: lambda p: p.refer(),
}
"""Opcode -> the machine's action. All other opcodes are refused."""
