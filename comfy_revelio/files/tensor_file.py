"""Safetensors files read with suspicion and written in one piece.

The header of a file is checked in plain Python before any tensor is touched: its size, that it
is sane JSON, and that every tensor lies inside the file, with the length that its shape implies
and without overlap. Writing goes to a temporary file first, so a full disk or an interrupt
leaves the old file whole.
"""

from __future__ import annotations

import glob
import io
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import RevelioError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 32 * 1024 * 1024
_MAX_RANK = 8
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
_TYPE_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """What the header says about one tensor; `dtype` is safetensors' name, such as "F16".

    `start` is the byte of the file at which it begins, which takes no part in comparisons.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Header:
    """The checked header of a file: its metadata strings and its tensors by name."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file; no tensor is read.

    Raises RevelioError when the file is missing, is no safetensors file, or is cut or malformed.
    """
    path = Path(path)
    if path.is_dir():
        raise RevelioError(f"{path} is a directory, but a .safetensors file is needed; name the file in it.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length < 2 or length > size - 8:
                raise _not_safetensors(path, "its first bytes give no header that fits in the file")
            if length > MAX_HEADER_BYTES:
                raise _not_safetensors(path, f"its header would be {length} bytes long")
            text = file.read(length)
    except FileNotFoundError:
        raise RevelioError(f"There is no file {path}; check the name and the folder.") from None
    except OSError as error:
        raise RevelioError(f"{path} cannot be read ({error.strerror}); check the file.") from None
    return _parse_header(path, text, data_bytes=size - 8 - length)


def read_tensors(path: str | os.PathLike[str], names: list[str], device: str = "cpu") -> dict[str, Tensor]:
    """Read the named tensors of a file whose header was checked by `read_header`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise RevelioError(f"{path} cannot be read ({error}); copy or download the file again.") from None


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file in one piece: complete under its name, or not at all."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise RevelioError(f"{path} cannot be written ({error.strerror}); choose another folder.") from None
    except ValueError:  # a null byte, or half of a character
        raise RevelioError(
            f"{str(path)!r} cannot be written: no file name has such characters; choose another name."
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            _write_all(file, tensors, metadata)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; a model file is not one
        os.replace(temporary, path)
    except OSError as error:
        raise RevelioError(
            f"{path} cannot be written ({error.strerror}); free some space or choose another folder."
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def discard_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what writers of this file, or of files named after it, left behind when they were killed.

    Only where no other process writes them now.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """What `write` puts into a file, for those who send it instead."""
    out = io.BytesIO()
    _write_all(out, tensors, metadata)
    return out.getvalue()


def parse_json(path: str | os.PathLike[str], text: str | bytes, what: str) -> Any:
    """Strict JSON of a file's header or metadata: no repeated names, NaN, or bottomless nesting."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RevelioError(
            f"{path} is broken: its {what} is no JSON ({reason}); get the file again."
        ) from None


def _write_all(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Header and tensors in a fixed order, so that the same content is always the same file."""
    import torch

    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    # Wide types first, as the safetensors library does it, to keep every tensor aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        shape, dtype = list(tensor.shape), _TYPE_NAMES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        raw = tensors[name].detach().cpu().contiguous().reshape(-1)
        file.write(raw.view(torch.uint8).numpy().data)


def _parse_header(path: Path, text: bytes, data_bytes: int) -> Header:
    header = parse_json(path, text, "header")
    if not isinstance(header, dict):
        raise _not_safetensors(path, "its header is no table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _not_safetensors(path, "its metadata is no table of strings")
    spans: list[tuple[int, int]] = []
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        info, span = _parse_entry(path, name, entry)
        tensors[name] = TensorInfo(info.dtype, info.shape, 8 + len(text) + span[0])
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _not_safetensors(path, "its tensors overlap or leave gaps")
        end = stop
    if end != data_bytes:
        raise _not_safetensors(path, f"it holds {data_bytes} bytes of tensors where its header lists {end}")
    return Header(metadata, tensors)


def _parse_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _not_safetensors(path, f"its entry for tensor {name!r} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _not_safetensors(path, f"tensor {name!r} has the unknown type {dtype!r}")
    if not _counts(shape) or len(shape) > _MAX_RANK or not _counts(offsets) or len(offsets) != 2:
        raise _not_safetensors(path, f"tensor {name!r} has a malformed shape or place")
    start, stop = offsets
    if stop - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise _not_safetensors(path, f"tensor {name!r} is not as long as its shape says")
    return TensorInfo(dtype, tuple(shape)), (start, stop)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _not_safetensors(path: Path, reason: str) -> RevelioError:
    return RevelioError(f"{path} is not a whole .safetensors file: {reason}; get the file again.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
