"""What a folder of activations says about itself: its manifest and the headers of its shards.

    folder/manifest.json              what the rows are activations of, and the list of finished shards
    folder/rows-000000.safetensors    x [n, d], timestep [n] float32, item [n] int64, of whole items

A shard counts once the manifest lists it; whatever else lies there is the leftover of a kill.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...errors import RevelioError
from ...files import tensor_file

MANIFEST = "manifest.json"
SHARD_NAME = re.compile(r"rows-[0-9]{6}\.safetensors")
LEFTOVER_NAME = re.compile(r"\.(rows-[0-9]{6}\.safetensors|manifest\.json)\.(.*\.)?part")
ROW_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""The types that rows may have: torch's names, and safetensors' names for them."""
ITEM_END = 2**62
"""Item numbers are below this."""

_FORMAT = "activations"
_VERSION = 1
_MOST_ROWS = 2**40
_WIDEST = 2**20


@dataclass(frozen=True)
class Source:
    """What the rows are activations of."""

    model: str
    """Identity of the model: its name and a fingerprint."""
    hook_point: str
    captured: str
    """"output" of the hooked module, or "diff" = output - input."""
    d_model: int
    grid: tuple[int, int] | None = None
    """Height and width of the tokens of an item when all items share them: row-major, whole."""
    extra: dict[str, str] = field(default_factory=dict)
    """Whatever else makes two harvests different."""

    def __post_init__(self) -> None:
        fault = _fault(vars(self))
        if fault:
            raise RevelioError(f"A source of activations needs {fault}.")

    def difference(self, other: Source) -> str | None:
        """The first thing in which another source differs, as "its NAME is HERE, not THERE"."""
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "extra":
                key = next((k for k in sorted({*mine, *theirs}) if mine.get(k) != theirs.get(k)), "")
                name, mine, theirs = f"extra {key!r}", mine.get(key), theirs.get(key)
            if mine != theirs:
                return f"its {name} is {mine!r}, not {theirs!r}"
        return None


class Items(Set[int]):
    """A set of item numbers, kept as sorted ranges (first, last) so that millions in a row cost nothing."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        self.ranges = tuple(merged)

    @classmethod
    def of(cls, items: Iterable[int]) -> Items:
        return cls((item, item) for item in items)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Items:  # type: ignore[override]
        """By which the operators of Set make their results."""
        return cls.of(it)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, int):
            return False
        place = bisect_left(self.ranges, item, key=lambda r: r[1])
        return place < len(self.ranges) and self.ranges[place][0] <= item

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __repr__(self) -> str:
        return f"Items({list(self.ranges)})"


@dataclass(frozen=True)
class Shard:
    """One finished shard, as the manifest lists it."""

    name: str
    rows: int
    items: Items


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json; `dtype` is torch's name, such as "float16"."""

    source: Source
    dtype: str
    shards: tuple[Shard, ...] = ()

    @property
    def items(self) -> Items:
        """The items of all shards."""
        return Items(r for shard in self.shards for r in shard.items.ranges)


@dataclass(frozen=True)
class ShardFile:
    """A listed shard whose file was checked; `starts` are the bytes at which its tensors begin."""

    path: Path
    rows: int
    items: Items
    bytes: int
    starts: dict[str, int]


def next_name(manifest: Manifest) -> str:
    """The name of the shard that comes after those listed."""
    number = max((int(shard.name[5:11]) for shard in manifest.shards), default=-1) + 1
    return f"rows-{number:06}.safetensors"


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder; the shards that it lists are not looked at."""
    path = folder / MANIFEST
    try:
        if path.is_symlink() or not path.is_file():
            raise RevelioError(f"There is no plain file {path}; name a folder of harvested activations.")
        with path.open("rb") as file:
            text = file.read(tensor_file.MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise RevelioError(f"{path} cannot be read ({error.strerror}); check the folder.") from None
    if len(text) > tensor_file.MAX_HEADER_BYTES:
        raise _broken(path, "it is larger than a manifest can be")
    return _manifest(path, tensor_file.parse_json(path, text, "content"))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in place in one piece; the old one stays when that fails."""
    table = {
        "format": _FORMAT,
        "version": _VERSION,
        "source": vars(manifest.source),
        "dtype": manifest.dtype,
        "shards": [{"name": s.name, "rows": s.rows, "items": s.items.ranges} for s in manifest.shards],
    }
    text = json.dumps(table).encode()
    if len(text) > tensor_file.MAX_HEADER_BYTES:
        raise RevelioError(
            f"{folder} has too many items for one manifest; choose another folder for the rest."
        )
    path, part = folder / MANIFEST, folder / f".{MANIFEST}.part"
    try:
        part.write_bytes(text)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RevelioError(
            f"{path} cannot be written ({error.strerror}); free some space or choose another folder."
        ) from None


def check_shards(folder: Path, manifest: Manifest) -> list[ShardFile]:
    """The files of all listed shards; every one must be there and hold what the manifest says."""
    return [_check_shard(folder / shard.name, manifest, shard) for shard in manifest.shards]


def _check_shard(path: Path, manifest: Manifest, shard: Shard) -> ShardFile:
    try:
        plain = path.is_file() and not path.is_symlink()
        size = path.stat().st_size if plain else 0
    except OSError as error:
        raise RevelioError(f"{path} cannot be read ({error.strerror}); check the file.") from None
    if not plain:
        raise RevelioError(f"{path} is listed in the manifest but is no plain file there; bring it back.")
    tensors = tensor_file.read_header(path).tensors
    expected = {
        "x": tensor_file.TensorInfo(ROW_TYPES[manifest.dtype], (shard.rows, manifest.source.d_model)),
        "timestep": tensor_file.TensorInfo("F32", (shard.rows,)),
        "item": tensor_file.TensorInfo("I64", (shard.rows,)),
    }
    if tensors != expected:
        raise RevelioError(
            f"{path} does not hold the {shard.rows} {manifest.dtype} rows of width {manifest.source.d_model} "
            "that the manifest lists; bring the right file back."
        )
    starts = {name: info.start for name, info in tensors.items()}
    return ShardFile(path, shard.rows, shard.items, size, starts)


def _manifest(path: Path, table: Any) -> Manifest:
    if not isinstance(table, dict) or table.get("format") != _FORMAT:
        raise _broken(path, "it is no manifest of activations")
    if table.get("version") != _VERSION:
        raise _broken(path, f"its version is not {_VERSION}")
    if set(table) != {"format", "version", "source", "dtype", "shards"}:
        raise _broken(path, "its entries are not those of a manifest")
    source, dtype, entries = table["source"], table["dtype"], table["shards"]
    if not isinstance(source, dict) or set(source) != {f.name for f in fields(Source)}:
        raise _broken(path, "its source is malformed")
    if isinstance(source["grid"], list):
        source["grid"] = tuple(source["grid"])
    fault = _fault(source)
    if fault:
        raise _broken(path, f"its source needs {fault}")
    if not isinstance(dtype, str) or dtype not in ROW_TYPES:
        raise _broken(path, "its dtype is none that rows can have")
    if not isinstance(entries, list):
        raise _broken(path, "its shards are no list")
    manifest = Manifest(Source(**source), dtype, tuple(_shard(path, entry) for entry in entries))
    if len({shard.name for shard in manifest.shards}) != len(entries):
        raise _broken(path, "it lists a shard twice")
    if len(manifest.items) != sum(len(shard.items) for shard in manifest.shards):
        raise _broken(path, "it lists an item twice")
    return manifest


def _shard(path: Path, entry: Any) -> Shard:
    if not isinstance(entry, dict) or set(entry) != {"name", "rows", "items"}:
        raise _broken(path, "the entry of a shard is malformed")
    name, rows, ranges = entry["name"], entry["rows"], entry["items"]
    if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
        raise _broken(path, f"{str(name)[:60]!r} is no name of a shard")
    if not _is_count(rows, _MOST_ROWS):
        raise _broken(path, f"the number of rows of {name} is malformed")
    if not isinstance(ranges, list) or not all(_is_range(r) for r in ranges):
        raise _broken(path, f"the items of {name} are malformed")
    items = Items((first, last) for first, last in ranges)
    total = sum(last - first + 1 for first, last in ranges)
    if (
        not 1 <= total <= rows or len(items) != total
    ):  # also keeps what is made of them within the file's size
        raise _broken(path, f"the items of {name} do not fit its {rows} rows")
    return Shard(name, rows, items)


def _fault(source: dict[str, Any]) -> str | None:
    """What the fields of a source lack, if anything."""
    if not all(isinstance(source[name], str) and source[name] for name in ("model", "hook_point")):
        return "a model and a hook point with names"
    if source["captured"] not in ("output", "diff"):
        return 'captured to be "output" or "diff"'
    if not _is_count(source["d_model"], _WIDEST):
        return f"a width d_model from 1 to {_WIDEST}"
    grid, extra = source["grid"], source["extra"]
    if grid is not None and not (
        isinstance(grid, tuple) and len(grid) == 2 and all(_is_count(side, _WIDEST) for side in grid)
    ):
        return "a grid of (height, width), or none"
    if not isinstance(extra, dict) or not all(isinstance(s, str) for pair in extra.items() for s in pair):
        return "extra to be strings by name"
    return None


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(end) is int for end in value)
        and 0 <= value[0] <= value[1] < ITEM_END
    )


def _broken(path: Path, reason: str) -> RevelioError:
    return RevelioError(f"{path} is broken: {reason}; harvest again or bring the right file back.")
