"""Read the directory of a zip file written by torch, and check the directory before any entry is read.

Python's zipfile would read a directory of any size, and would accept entries that overlap.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from .machine import Machine
from .values import Span, broken

_MAX_ENTRIES = 10_000
_MAX_DIRECTORY_BYTES = 4 * 1024**2
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


def zip_entries(file: io.BufferedIOBase, start: int, end: int, machine: Machine) -> dict[str, Span]:
    """Return the Span of each entry in a zip file, keyed by the entry's name without the top folder."""
    first, last, count = _directory(file, start, end)
    if count > _MAX_ENTRIES or last - first > _MAX_DIRECTORY_BYTES:
        raise broken("it has far more entries than a dictionary needs")
    machine.spend((last - first) // 16)
    file.seek(first)
    table = file.read(last - first)
    entries: dict[str, Span] = {}
    spans: list[tuple[int, int]] = []
    at = 0
    for _ in range(count):
        mark, _, _, flags, method, _, _, crc, *sizes, name_size, extra_size, note_size, _, _, _, offset = (
            _ENTRY.unpack_from(table, at)
        )
        at += _ENTRY.size
        name = table[at : at + name_size]
        at += name_size
        packed, length, offset = _wide_numbers(table[at : at + extra_size], *sizes, offset)
        at += extra_size + note_size
        if mark != b"PK\x01\x02":
            raise broken("its list of entries is malformed")
        if method != 0 or packed != length:
            raise broken("its entries are compressed, which torch never does")
        if flags & 0x2041:
            raise broken("it is encrypted")
        header = start + offset
        data = header + _LOCAL.size + _name_bytes(file, header, first, name)
        spans.append((header, data + length))
        entry = name.decode()
        if entry in entries:
            raise broken("two of its entries have the same name")
        entries[entry] = Span(data, length, crc)
    if at != len(table):
        raise broken("its list of entries is malformed")
    _check_apart(sorted(spans), first)
    return _inside_folder(entries)


def _check_apart(spans: list[tuple[int, int]], end: int) -> None:
    for (_, stop), (following, _) in zip(spans, [*spans[1:], (end, end)], strict=True):
        if stop > following:
            raise broken("its entries overlap")


def _directory(file: io.BufferedIOBase, start: int, end: int) -> tuple[int, int, int]:
    """Return where the list of entries begins and ends, and the number of entries."""
    last = end - _END.size
    mark, _, _, _, count, size, offset, note_size = _unpack(file, last, _END)
    if mark != b"PK\x05\x06" or note_size:
        raise broken("its end is missing or damaged")
    at = last - _LOCATOR.size
    mark, _, offset_64, _ = _unpack(file, at, _LOCATOR)
    if mark == b"PK\x06\x07":
        last = at - _END_64.size
        mark, _, _, _, _, _, _, count, size, offset = _unpack(file, last, _END_64)
        if mark != b"PK\x06\x06" or start + offset_64 != last:
            raise broken("its end is damaged")
    if start + offset + size != last:
        raise broken("its list of entries is not where it should be")
    return start + offset, last, count


def _wide_numbers(extra: bytes, *numbers: int) -> list[int]:
    """Return the sizes and the offset of an entry, reading those that need 64 bits from its extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1:
            packed, length, offset = numbers
            wide = iter(struct.unpack_from(f"<{size // 8}Q", extra, at))
            length, packed, offset = (next(wide) if n == 2**32 - 1 else n for n in (length, packed, offset))
            return [packed, length, offset]
        at += size
    return list(numbers)


def _name_bytes(file: io.BufferedIOBase, header: int, end: int, name: bytes) -> int:
    """Return the length in bytes of the name and extra field between an entry's local header and its data."""
    if header + _LOCAL.size > end:
        raise broken("an entry is outside the file")
    mark, *_, name_size, extra_size = _unpack(file, header, _LOCAL)
    if mark != b"PK\x03\x04" or file.read(name_size) != name:
        raise broken("an entry is not where it should be")
    return int(name_size + extra_size)


def _inside_folder(entries: dict[str, Span]) -> dict[str, Span]:
    for name in entries:
        parts = name.split("/")
        if len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts) or "\\" in name or "\0" in name:
            raise broken("an entry has a name that torch never gives")
    if len({name.partition("/")[0] for name in entries}) > 1:
        raise broken("it has more than one folder")
    return {name.partition("/")[2]: span for name, span in entries.items()}


def _unpack(file: io.BufferedIOBase, at: int, layout: struct.Struct) -> tuple[Any, ...]:
    file.seek(at)
    return layout.unpack(file.read(layout.size))
