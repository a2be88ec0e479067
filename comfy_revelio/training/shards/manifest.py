"""The layout of a folder of activations: its manifest and the headers of its shards.

    folder/manifest.json              the source of the rows (model, hook point...) and a list of the shards
    folder/rows-000000.safetensors    x [n, d], timestep [n] float32, item [n] int64; whole items only

A shard is valid once the manifest lists it. An unlisted shard was left by a process that was killed.
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
from ...files.json_fields import Fields, is_count, is_list, is_text
from ...hookpoints.point import Captured

MANIFEST = "manifest.json"
SHARD_NAME = re.compile(r"rows-[0-9]{6}\.safetensors")
LEFTOVER_NAME = re.compile(r"\.(rows-[0-9]{6}\.safetensors|manifest\.json)\.(.*\.)?part")
ROW_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""{torch's name of a dtype that rows can have: safetensors' name of this dtype}."""
ITEM_END = 2**62
"""Item numbers must be below this number."""

_ADVICE = "harvest again or restore the right file"
_FORMAT = "activations"
_VERSION = 1
_MOST_ROWS = 2**40
_WIDEST = 2**20


@dataclass(frozen=True)
class Source:
    """The origin of the rows: the model, the hook point and the settings."""

    model: str
    """A name that identifies the model."""
    hook_point: str
    captured: Captured
    """"output" (of the hooked module) or "diff" (its output minus its input)."""
    d_model: int
    grid: tuple[int, int] | None = None
    """Height and width of the token maps, if all items have complete maps of this size; else None."""
    extra: dict[str, str] = field(default_factory=dict)
    """All other settings that affect the activations, as {name: value}."""

    def __post_init__(self) -> None:
        fault = _fault(vars(self))
        if fault:
            raise RevelioError(f"The source of the activations is invalid: it needs {fault}.")

    def difference(self, other: Source) -> str | None:
        """Return the first difference as "its FIELD is OURS, not THEIRS"; None if the sources are equal."""
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "extra":
                key = next((k for k in sorted({*mine, *theirs}) if mine.get(k) != theirs.get(k)), "")
                name, mine, theirs = f"extra {key!r}", mine.get(key), theirs.get(key)
            if mine != theirs:
                return f"its {name} is {mine!r}, not {theirs!r}"
        return None


class Items(Set[int]):
    """A set of item numbers, stored as sorted ranges (first, last): consecutive numbers share one range."""

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
        """Create an Items from the result of an operator of Set, such as | or -."""
        return cls.of(it)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, int):
            return False
        at = bisect_left(self.ranges, item, key=lambda r: r[1])
        return at < len(self.ranges) and self.ranges[at][0] <= item

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
    """The content of manifest.json."""

    source: Source
    dtype: str
    """torch's name for the dtype of the rows, such as "float16"."""
    shards: tuple[Shard, ...] = ()

    @property
    def items(self) -> Items:
        """The items of all shards."""
        return Items(r for shard in self.shards for r in shard.items.ranges)

    def difference(self, other: Manifest) -> str | None:
        """Return a difference that forbids mixing the two manifests' rows (a phrase), or None."""
        found = self.source.difference(other.source)
        if found is None and self.dtype != other.dtype:
            found = f"its dtype is {self.dtype}, not {other.dtype}"
        return found


@dataclass(frozen=True)
class ShardFile:
    """A shard whose file was checked against the manifest."""

    path: Path
    rows: int
    items: Items
    bytes: int
    starts: dict[str, int]
    """{name of a tensor: byte offset of its data in the file}."""


def next_name(manifest: Manifest) -> str:
    """Return the file name for the next shard."""
    number = max((int(shard.name[5:11]) for shard in manifest.shards), default=-1) + 1
    return f"rows-{number:06}.safetensors"


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder, without opening the shards."""
    path = folder / MANIFEST
    try:
        if path.is_symlink() or not path.is_file():
            raise RevelioError(f"There is no regular file {path}; choose a folder of harvested activations.")
        with path.open("rb") as file:
            text = file.read(tensor_file.MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise RevelioError(f"{path} cannot be read ({error.strerror}); check the folder.") from None
    if len(text) > tensor_file.MAX_HEADER_BYTES:
        raise RevelioError(f"{path} is broken: it is too large for a manifest; {_ADVICE}.")
    return _manifest(path, tensor_file.parse_json(path, text, "content"))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically: if writing fails, the old manifest remains."""
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
    """Check that every listed shard exists and matches the manifest; return the shards' files."""
    return [_check_shard(folder / shard.name, manifest, shard) for shard in manifest.shards]


def _check_shard(path: Path, manifest: Manifest, shard: Shard) -> ShardFile:
    try:
        plain = path.is_file() and not path.is_symlink()
        size = path.stat().st_size if plain else 0
    except OSError as error:
        raise RevelioError(f"{path} cannot be read ({error.strerror}); check the file.") from None
    if not plain:
        raise RevelioError(f"{path} is listed in the manifest, but is not a regular file; restore the file.")
    tensors = tensor_file.read_header(path).tensors
    expected = {
        "x": tensor_file.TensorInfo(ROW_TYPES[manifest.dtype], (shard.rows, manifest.source.d_model)),
        "timestep": tensor_file.TensorInfo("F32", (shard.rows,)),
        "item": tensor_file.TensorInfo("I64", (shard.rows,)),
    }
    if tensors != expected:
        raise RevelioError(
            f"{path} lacks the {shard.rows} {manifest.dtype} rows of width {manifest.source.d_model} "
            "that the manifest lists; restore the right file."
        )
    starts = {name: info.start for name, info in tensors.items()}
    return ShardFile(path, shard.rows, shard.items, size, starts)


def _manifest(path: Path, table: Any) -> Manifest:
    keys = ("format", "version", "source", "dtype", "shards")
    content = Fields(path, table, _ADVICE, "content", keys)
    content.choice("format", (_FORMAT,))
    content.count("version", least=_VERSION, most=_VERSION)
    source = Fields(path, table["source"], _ADVICE, "source", [f.name for f in fields(Source)]).table
    if isinstance(source["grid"], list):
        source["grid"] = tuple(source["grid"])
    if fault := _fault(source):
        raise content.broken(f"its source needs {fault}")
    shards = tuple(_shard(entry) for entry in content.tables("shards", ("name", "rows", "items")))
    manifest = Manifest(Source(**source), content.choice("dtype", tuple(ROW_TYPES)), shards)
    if len({shard.name for shard in shards}) != len(shards):
        raise content.broken("it lists a shard twice")
    if len(manifest.items) != sum(len(shard.items) for shard in shards):
        raise content.broken("it lists an item twice")
    return manifest


def _shard(entry: Fields) -> Shard:
    name: str = entry.take("name", _is_shard_name, "the name of a shard")
    rows = entry.count("rows", least=1, most=_MOST_ROWS)
    ranges: list[list[int]] = entry.take("items", lambda v: is_list(v, _is_range), "ranges of item numbers")
    items = Items((first, last) for first, last in ranges)
    total = sum(last - first + 1 for first, last in ranges)
    # Each item has at least one row, so a shard cannot have more items than rows.
    if not 1 <= total <= rows or len(items) != total:
        raise entry.broken(f"the items of {name} do not fit its {rows} rows")
    return Shard(name, rows, items)


def _fault(source: dict[str, Any]) -> str | None:
    """Return what a source with invalid fields needs, such as "a grid of ..."; None if it is valid."""
    if not all(isinstance(source[name], str) and source[name] for name in ("model", "hook_point")):
        return "a model and a hook point with names"
    if source["captured"] not in ("output", "diff"):
        return 'captured to be "output" or "diff"'
    if not is_count(source["d_model"], 1, _WIDEST):
        return f"a width d_model from 1 to {_WIDEST}"
    grid, extra = source["grid"], source["extra"]
    if grid is not None and not (
        isinstance(grid, tuple) and len(grid) == 2 and all(is_count(side, 1, _WIDEST) for side in grid)
    ):
        return "a grid of (height, width), or none"
    if not isinstance(extra, dict) or not all(isinstance(s, str) for pair in extra.items() for s in pair):
        return "extra to map names to strings"
    return None


def _is_shard_name(value: Any) -> bool:
    return is_text(value) and SHARD_NAME.fullmatch(value) is not None


def _is_range(value: Any) -> bool:
    if not is_list(value, lambda end: is_count(end, 0, ITEM_END - 1)) or len(value) != 2:
        return False
    return bool(value[0] <= value[1])
