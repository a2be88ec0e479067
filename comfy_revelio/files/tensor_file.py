"""Read and check untrusted safetensors files, and write safetensors files atomically.

The safetensors library checks that a header is sound and that its tensors fill the file without overlap or
gaps. This module also requires unique names, and types, ranks and sizes that torch can hold. Files are first
written under a temporary name, so a full disk or an interruption leaves the old file intact.
"""

from __future__ import annotations

import glob
import io
import json
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
_MAX_SIDE = 2**48
_TYPE_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip


_READ_TYPES = (*_TYPE_NAMES.values(), "F8_E4M3", "F8_E5M2", "U16", "U32", "U64")


@dataclass(frozen=True)
class TensorInfo:
    """The entry for one tensor in a file's header."""

    dtype: str
    """The type's name in safetensors, such as "F16"."""
    shape: tuple[int, ...]
    start: int = field(default=0, compare=False)
    """The position in the file, in bytes, at which the tensor begins."""


@dataclass(frozen=True)
class Header:
    """A file's header, already checked: the metadata strings, and an entry for each tensor."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file, without reading any tensor."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        raise RevelioError(f"{path} is a folder, but a .safetensors file is needed; name the file in it.")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise _not_safetensors(path, f"its header would be {length} bytes long")
            with safe_open(str(path), framework="numpy"):
                text = file.read(length)
    except FileNotFoundError:
        raise RevelioError(f"There is no file {path}; check the name and the folder.") from None
    except OSError as error:
        raise RevelioError(f"{path} cannot be read ({error.strerror}); check the file.") from None
    except SafetensorError as error:
        raise _not_safetensors(path, _short(error)) from None
    header = parse_json(path, text, "header")
    metadata = header.pop("__metadata__", None) or {}
    first = 8 + length
    return Header(metadata, {name: _tensor_info(path, name, entry, first) for name, entry in header.items()})


def read_format(path: str | os.PathLike[str], name: str, version: str, otherwise: str) -> Header:
    """Read the header of a file in the format `name`; for other files, `otherwise` ends the error message."""
    header = read_header(path)
    if header.metadata.get("format") != name:
        raise RevelioError(f"{path} {otherwise}")
    if (found := header.metadata.get("format_version")) != version:
        raise RevelioError(
            f"{path} has format version {found!r:.40}, but this Revelio reads {version!r}; update Revelio."
        )
    return header


def read_tensors(path: str | os.PathLike[str], names: list[str], device: str = "cpu") -> dict[str, Tensor]:
    """Read the named tensors of a file whose header was checked by `read_header`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise RevelioError(
            f"{path} cannot be read ({_short(error)}); copy or download the file again."
        ) from None


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically: `path` becomes the complete new file, or stays as it was."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise RevelioError(f"{path} cannot be written ({error.strerror}); choose another folder.") from None
    except ValueError:  # the name has a null byte, or half of a surrogate pair
        raise RevelioError(
            f"{str(path)!r} cannot be written: a file name cannot have such characters; use another."
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            _write_all(file, tensors, metadata)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private; restore the usual permissions
        os.replace(temporary, path)
    except OSError as error:
        raise RevelioError(
            f"{path} cannot be written ({error.strerror}); free some space or choose another folder."
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def discard_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove temporary files of processes that were killed while writing `path` or `path` plus ".suffix".

    Call this only while no other process is writing these files.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes that `write` would write to a file."""
    out = io.BytesIO()
    _write_all(out, tensors, metadata)
    return out.getvalue()


def parse_json(path: str | os.PathLike[str], text: str | bytes, what: str) -> Any:
    """Parse a file's header or metadata as strict JSON; refuse repeated names, NaN and deep nesting."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RevelioError(
            f"{path} is broken: its {what} is not valid JSON ({reason}); get the file again."
        ) from None


def _write_all(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write header and tensors in a fixed order, so that equal content always gives identical files."""
    import torch

    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    # Wide types come first, as in the safetensors library, to keep every tensor aligned.
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


def _tensor_info(path: Path, name: str, entry: Any, first: int) -> TensorInfo:
    # The safetensors library also accepts an entry that is a JSON list, and a type that is a JSON object.
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _not_safetensors(path, f"its entry for tensor {name!r:.80} is malformed")
    dtype, shape = entry["dtype"], entry["shape"]
    if dtype not in _READ_TYPES:
        raise _not_safetensors(path, f"tensor {name!r:.80} has the unsupported type {dtype!r:.40}")
    if len(shape) > _MAX_RANK or any(side >= _MAX_SIDE for side in shape):
        raise _not_safetensors(path, f"tensor {name!r:.80} has an unsupported shape")
    return TensorInfo(dtype, tuple(shape), first + entry["data_offsets"][0])


def _short(error: Exception) -> str:
    """Cut the preamble of a safetensors error message (it may quote the file), and shorten it to one line."""
    text = str(error)[:300].removeprefix("Error while deserializing header: ")
    return " ".join(text.split())[:200]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _not_safetensors(path: Path, reason: str) -> RevelioError:
    return RevelioError(f"{path} is not a complete .safetensors file: {reason}; get the file again.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
