"""Checkpoints of torch.save and pickles of tensors, read without running anything in them.

The directory of a zip, the unpacked size of a gzip, and the whole pickle are checked in plain
Python before any tensor is read; nothing here uses torch.load or Python's own unpickler.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RevelioError
from .pickle_scan import MAX_TEXT_BYTES, Machine, Refused, Span, Storage, Stub, View, broken, rebuilt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Stub", "read_pickle"]

_MAX_BYTES = 4 * 1024**3  # 65,536 features 4,096 wide are a little more than 2 GB
_MAX_UNPACKED_BYTES = 512 * 1024**2  # or four times the packed size: weights hardly shrink
_CHUNK = 1024**2

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_ZIP_MAX_ENTRIES = 10_000
_ZIP_MAX_DIRECTORY = 4 * 1024**2
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP_LOCATOR = struct.Struct("<4sLQL")
_ZIP_END_64 = struct.Struct("<4sQ2H2L4Q")
_ZIP_ENTRY = struct.Struct("<4s6H3L5H2L")
_ZIP_LOCAL = struct.Struct("<4s5H3L2H")


def read_pickle(
    path: str | os.PathLike[str], *, stubs: Collection[str] = (), max_bytes: int | None = None
) -> Any:
    """The content of a torch.save file (zip or legacy) or of a pickle of tensors (plain or gzip).

    Nothing in the file is run. Tensors come back on the CPU, parameters as plain tensors, and
    objects of the classes named in `stubs` ("training.config.SDSAERunnerConfig") as Stub. Any
    other class or function is refused. `max_bytes` bounds the file, unpacked: unless given, 4 GB,
    and for gzip 512 MB or four times the packed size.
    Raises RevelioError, and nothing else, for a file that is not read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise Refused("is a directory, but a file of saved tensors is needed; name the file in it.")
        if not stat.S_ISREG(mode):
            raise Refused("is no ordinary file; name a file of saved tensors.")
        with path.open("rb") as file:
            return _read(file, frozenset(stubs), max_bytes)
    except Refused as refused:
        problem = f"{path} {refused}"
    except FileNotFoundError:
        problem = f"There is no file {path}; check the name and the folder."
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror}); check the file."
    except MemoryError:
        problem = f"{path} needs more memory than there is; close other programs or use a smaller file."
    except Exception:  # whatever a malformed file trips over
        problem = f"{path} {broken('it does not follow the format')}"
    # Raised out here, the error does not keep what was read of the file alive.
    raise RevelioError(problem)


def _read(file: io.BufferedIOBase, stubs: frozenset[str], max_bytes: int | None) -> Any:
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise Refused("is empty; get the file again.")
    file.seek(0)
    if file.read(2) == b"\x1f\x8b":
        usual = max(_MAX_UNPACKED_BYTES, 4 * size)
        file = _unpacked(file, size, usual if max_bytes is None else max_bytes)
        size = file.seek(0, io.SEEK_END)
    elif size > (_MAX_BYTES if max_bytes is None else max_bytes):
        raise Refused(f"is {size} bytes long, more than is read of a pickle; use a .safetensors file.")
    saved = _SavedFile(file, stubs)
    content = saved.parse(0, size)
    rebuilt(content, lambda _: None)  # everything is checked before the first tensor takes memory
    return rebuilt(content, saved.read)


def _unpacked(file: io.BufferedIOBase, size: int, max_bytes: int) -> io.BytesIO:
    """The content of a gzip file of `size` bytes; stops as soon as it is larger than tensors can be."""
    limit = min(_MAX_BYTES, 200 * size + 1024**2, max_bytes)
    too_large = Refused(f"unpacks to more than {limit} bytes, which is not read; use a .safetensors file.")
    if size > limit:
        raise too_large
    file.seek(0)
    content = io.BytesIO()
    inflater = zlib.decompressobj(wbits=31)
    while not inflater.eof:
        packed = inflater.unconsumed_tail or file.read(_CHUNK // 16)
        piece = inflater.decompress(packed, _CHUNK)
        if not packed and not piece:
            raise broken("it is cut short")
        if content.tell() + len(piece) > limit:
            raise too_large
        content.write(piece)
    if inflater.unused_data or file.read(1):
        raise broken("something follows its end")
    return content


class _SavedFile:
    """The formats around a pickle: they tell where the tensors' numbers are."""

    def __init__(self, file: io.BufferedIOBase, stubs: frozenset[str]) -> None:
        self._file = file
        self._machine = Machine(file, stubs, self._inner_storage)
        self._inner: dict[int, Storage] = {}
        self._is_inside = False
        self._done: dict[int, Any] = {}  # by the identity of a View, Span or Storage of the content

    def parse(self, start: int, end: int) -> Any:
        """The content between two places of the file, its tensors still unread."""
        self._file.seek(start)
        head = self._file.read(min(4, end - start))
        if head == b"PK\x03\x04":
            return self._parse_zip(start, end)
        if not head.startswith(b"\x80"):
            raise broken("it is neither a torch.save file nor a pickle")
        content, at = self._machine.load(start, end)
        if type(content) is int and content == _LEGACY_MAGIC:
            return self._parse_legacy(at, end)
        if at != end:
            raise broken("something follows its end")
        return content

    def read(self, leaf: View | Span) -> Any:
        """The tensor or the bytes of one place; the same object for the same place."""
        if id(leaf) not in self._done:
            self._done[id(leaf)] = self._bytes(leaf) if isinstance(leaf, Span) else self._tensor(leaf)
        return self._done[id(leaf)]

    def _inner_storage(self, span: Span) -> Storage:
        """A storage that was saved on its own, as plain pickles hold the numbers of a tensor."""
        if self._is_inside:
            raise broken("it holds saved tensors inside of saved tensors")
        if span.start not in self._inner:
            self._is_inside = True
            storage = self.parse(span.start, span.start + span.length)
            self._is_inside = False
            if type(storage) is not Storage:
                raise broken("one of its tensors is stored in an unknown form")
            self._inner[span.start] = storage
        return self._inner[span.start]

    def _parse_zip(self, start: int, end: int) -> Any:
        entries = _zip_entries(self._file, start, end, self._machine)
        main, order = entries.get("data.pkl"), entries.get("byteorder")
        if main is None:
            raise broken("it is a zip file without the parts of a torch.save file")
        if main.length > MAX_TEXT_BYTES:
            raise broken("its pickle is far too long")
        self._bytes(main)  # only for its checksum
        if order is not None and (order.length > 16 or self._bytes(order) != b"little"):
            raise _big_endian()
        storages: dict[str, Storage] = {}
        content, at = self._machine.load(main.start, main.start + main.length, storages)
        if at != main.start + main.length:
            raise broken("something follows the end of its pickle")
        for key, storage in storages.items():
            storage.span = entries.get(f"data/{key}")
            if storage.span is None or storage.span.length != storage.nbytes:
                raise broken("the numbers of a tensor are missing, or not as many as they should be")
        return content

    def _parse_legacy(self, at: int, end: int) -> Any:
        version, at = self._machine.load(at, end)
        system, at = self._machine.load(at, end)
        if version != _LEGACY_VERSION or type(system) is not dict:
            raise broken("it is of an unknown version")
        if system.get("little_endian") is not True:
            raise _big_endian()
        storages: dict[str, Storage] = {}
        content, at = self._machine.load(at, end, storages)
        keys, at = self._machine.load(at, end)
        named = type(keys) is list and all(type(key) is str for key in keys)
        if not named or len(keys) != len(storages) or set(keys) != set(storages):
            raise broken("its list of storages is wrong")
        for key in keys:
            storage = storages[key]
            self._file.seek(at)
            count = int.from_bytes(self._file.read(8), "little")
            at += 8
            if count != storage.count or storage.nbytes > end - at:
                raise broken("the numbers of a tensor are missing, or not as many as they should be")
            storage.span = Span(at, storage.nbytes)
            at += storage.nbytes
        if at != end:
            raise broken("something follows its end")
        return content

    def _tensor(self, view: View) -> Tensor:
        import torch

        storage = view.storage
        dtype = getattr(torch, storage.dtype)
        if 0 in view.size:
            return torch.empty(view.size, dtype=dtype)
        if id(storage) not in self._done:
            assert storage.span is not None
            raw = torch.empty(storage.nbytes, dtype=torch.uint8)
            self._fill(raw.numpy().data, storage.span)
            # A byte that is neither 0 nor 1 is no truth value.
            self._done[id(storage)] = raw != 0 if dtype == torch.bool else raw.view(dtype)
        flat: Tensor = self._done[id(storage)]
        return flat.as_strided(view.size, view.stride, view.offset)

    def _bytes(self, span: Span) -> bytes:
        data = bytearray(span.length)
        self._fill(memoryview(data), span)
        return bytes(data)

    def _fill(self, target: memoryview, span: Span) -> None:
        self._file.seek(span.start)
        crc = 0
        for at in range(0, span.length, _CHUNK):
            part = target[at : at + _CHUNK]
            if self._file.readinto(part) != len(part):
                raise broken("it is cut short")
            crc = zlib.crc32(part, crc)
        if span.crc is not None and crc != span.crc:
            raise broken("its content does not match its checksum")


def _zip_entries(file: io.BufferedIOBase, start: int, end: int, machine: Machine) -> dict[str, Span]:
    """The entries of a zip as torch writes it, by their names without the one folder around them."""
    first, last, count = _zip_directory(file, start, end)
    if count > _ZIP_MAX_ENTRIES or last - first > _ZIP_MAX_DIRECTORY:
        raise broken("it has far more entries than a dictionary needs")
    machine.spend((last - first) // 16)
    file.seek(first)
    table = file.read(last - first)
    entries: dict[str, Span] = {}
    places: list[tuple[int, int]] = []
    at = 0
    for _ in range(count):
        mark, _, _, flags, method, _, _, crc, *sizes, name_size, extra_size, note_size, _, _, _, offset = (
            _ZIP_ENTRY.unpack_from(table, at)
        )
        at += _ZIP_ENTRY.size
        name = table[at : at + name_size]
        at += name_size
        packed, length, offset = _zip_numbers(table[at : at + extra_size], *sizes, offset)
        at += extra_size + note_size
        if mark != b"PK\x01\x02":
            raise broken("its list of entries is malformed")
        if method != 0 or packed != length:
            raise broken("it is compressed inside, which torch never does")
        if flags & 0x2041:
            raise broken("it is encrypted")
        header = start + offset
        data = header + _ZIP_LOCAL.size + _zip_name_bytes(file, header, first, name)
        places.append((header, data + length))
        entry = name.decode()
        if entry in entries:
            raise broken("two of its entries have the same name")
        entries[entry] = Span(data, length, crc)
    if at != len(table):
        raise broken("its list of entries is malformed")
    places.sort()
    for (_, stop), (following, _) in zip(places, [*places[1:], (first, first)], strict=True):
        if stop > following:
            raise broken("its entries overlap")
    return _inside_folder(entries)


def _zip_directory(file: io.BufferedIOBase, start: int, end: int) -> tuple[int, int, int]:
    """Where the list of entries begins and ends, and how many there are."""
    last = end - _ZIP_END.size
    mark, _, _, _, count, size, offset, note_size = _unpack(file, last, _ZIP_END)
    if mark != b"PK\x05\x06" or note_size:
        raise broken("its end is missing or damaged")
    place = last - _ZIP_LOCATOR.size
    mark, _, offset_64, _ = _unpack(file, place, _ZIP_LOCATOR)
    if mark == b"PK\x06\x07":
        last = place - _ZIP_END_64.size
        mark, _, _, _, _, _, _, count, size, offset = _unpack(file, last, _ZIP_END_64)
        if mark != b"PK\x06\x06" or start + offset_64 != last:
            raise broken("its end is damaged")
    if start + offset + size != last:
        raise broken("its list of entries is not where it should be")
    return start + offset, last, count


def _zip_numbers(extra: bytes, *numbers: int) -> list[int]:
    """Sizes and offset of an entry; those that need more than 32 bits are in its extra field."""
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


def _zip_name_bytes(file: io.BufferedIOBase, header: int, end: int, name: bytes) -> int:
    """How many bytes of name and extra field lie between an entry's own header and its data."""
    if header + _ZIP_LOCAL.size > end:
        raise broken("an entry is outside of it")
    mark, *_, name_size, extra_size = _unpack(file, header, _ZIP_LOCAL)
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


def _big_endian() -> Refused:
    return Refused("was saved on a big-endian computer, which is not supported; save it again on another.")
