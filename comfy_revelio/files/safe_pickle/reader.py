"""Read the formats around a pickle: torch.save's zip and legacy forms, plain pickles, and gzip."""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RevelioError
from .machine import Machine
from .tree import as_tree
from .values import MAX_TEXT_BYTES, Refused, Span, Storage, View, broken
from .zip_entries import zip_entries

if TYPE_CHECKING:
    from torch import Tensor

_MAX_BYTES = 4 * 1024**3  # 65,536 features of width 4,096 take a little more than 2 GB
_MAX_UNPACKED_BYTES = 512 * 1024**2  # or four times the packed size, if that is more; weights hardly shrink
_CHUNK = 1024**2

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def read_pickle(
    path: str | os.PathLike[str], *, stubs: Collection[str] = (), max_bytes: int | None = None
) -> Any:
    """Read the content of a torch.save file (zip or legacy) or of a pickle of tensors (plain or gzip).

    No code in the file is run. Tensors are returned on the CPU, parameters as plain tensors, and objects of
    the classes named in `stubs` ("training.config.SDSAERunnerConfig") as Stub. Any other class or function is
    refused. `max_bytes` limits the unpacked size of the file; by default it is 4 GB, or for gzip the larger
    of 512 MB and four times the packed size.
    Raises: RevelioError, and nothing else, for a file that cannot be read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise Refused("is a folder, but a file of saved tensors is needed; name the file in it.")
        if not stat.S_ISREG(mode):
            raise Refused("is not a regular file; name a file of saved tensors.")
        with path.open("rb") as file:
            return _read(file, frozenset(stubs), max_bytes)
    except Refused as refused:
        problem = f"{path} {refused}"
    except FileNotFoundError:
        problem = f"There is no file {path}; check the name and the folder."
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror}); check the file."
    except MemoryError:
        problem = f"{path} needs more memory than is free; close other programs or use a smaller file."
    except Exception:  # a malformed file can cause any exception
        problem = f"{path} {broken('it does not follow the format')}"
    # Raised outside the handlers: inside, the error would keep the content read so far in memory.
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
        raise Refused(f"is {size} bytes long, too large for a pickle; use a .safetensors file.")
    saved = _SavedFile(file, stubs)
    content = saved.parse(0, size)
    as_tree(content, lambda _: None)  # everything is checked before the first tensor takes memory
    return as_tree(content, saved.read)


def _unpacked(file: io.BufferedIOBase, size: int, max_bytes: int) -> io.BytesIO:
    """Unpack a gzip file of `size` bytes; refuse it as soon as its content exceeds the limit."""
    limit = min(_MAX_BYTES, 200 * size + 1024**2, max_bytes)
    too_large = Refused(f"unpacks to more than {limit} bytes, which is too large; use a .safetensors file.")
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
    """A file whose tensors are read only after its whole pickle has been parsed and found sound."""

    def __init__(self, file: io.BufferedIOBase, stubs: frozenset[str]) -> None:
        self._file = file
        self._machine = Machine(file, stubs, self._inner_storage)
        self._inner: dict[int, Storage] = {}
        self._is_inside = False
        self._done: dict[int, Any] = {}  # id of a View, Span or Storage -> its content

    def parse(self, start: int, end: int) -> Any:
        """Return the content between two positions in the file, with its tensors still unread."""
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
        """Return the tensor or bytes that `leaf` describes; the same leaf always gives the same object."""
        if id(leaf) not in self._done:
            self._done[id(leaf)] = self._bytes(leaf) if isinstance(leaf, Span) else self._tensor(leaf)
        return self._done[id(leaf)]

    def _inner_storage(self, span: Span) -> Storage:
        """Return the storage in a nested file, the form in which plain pickles save a tensor's numbers."""
        if self._is_inside:
            raise broken("it holds saved tensors inside saved tensors")
        if span.start not in self._inner:
            self._is_inside = True
            storage = self.parse(span.start, span.start + span.length)
            self._is_inside = False
            if type(storage) is not Storage:
                raise broken("one of its tensors is stored in an unknown form")
            self._inner[span.start] = storage
        return self._inner[span.start]

    def _parse_zip(self, start: int, end: int) -> Any:
        entries = zip_entries(self._file, start, end, self._machine)
        main, order = entries.get("data.pkl"), entries.get("byteorder")
        if main is None:
            raise broken("it is a zip file without the parts of a torch.save file")
        if main.length > MAX_TEXT_BYTES:
            raise broken("its pickle is far too long")
        self._bytes(main)  # read only to verify its checksum
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
            # The file may have bytes other than 0 and 1, which are not valid bools.
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


def _big_endian() -> Refused:
    return Refused("was saved on a big-endian computer, which is not supported; save it again on another.")
