"""Write harvested activations to disk so that a kill at any moment loses little and damages nothing.

Rows stay in memory until their item is complete. Complete items are written together as a shard. The shard is
renamed to its final name when it is complete, and only then listed in the manifest. Every listed shard is
therefore complete, and the next run harvests all other items again.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from ...errors import RevelioError
from ...files import tensor_file
from .manifest import (
    ITEM_END,
    LEFTOVER_NAME,
    MANIFEST,
    ROW_TYPES,
    SHARD_NAME,
    Items,
    Manifest,
    Shard,
    Source,
    check_shards,
    next_name,
    read_manifest,
    write_manifest,
)

_HEADER_BYTES = 1024  # more than any shard's header


class BudgetReached(RevelioError):
    """The shards have reached their size limit; what is on disk is complete and usable."""


@dataclass
class _Item:
    """The rows that one item has received so far."""

    number: int
    parts: list[Tensor] = field(default_factory=list)
    """Tensors [n, d], in the dtype of the shards."""
    timesteps: list[float] = field(default_factory=list)
    """The timestep of each part."""
    rows: int = 0


class ShardWriter:
    """Collects the activations of items, in any order or interleaved, and writes shards of complete items.

    If the folder already has shards of the same source and dtype, new shards are added to them. Adding an
    item that was complete on disk at the start does nothing; a harvest can skip such items (`done_items`).
    Only one process at a time may write to a folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        source: Source,
        *,
        dtype: torch.dtype = torch.float16,
        shard_bytes: int = 256 * 2**20,
        shard_items: int = 64,
        budget_bytes: int | None = None,
    ) -> None:
        """Open the folder. A kill loses only the items that are not yet in a shard on disk.

        shard_bytes: maximum size of a shard, unless a single item is larger.
        shard_items: maximum number of items per shard.
        budget_bytes: maximum size of all shards together.
        """
        name = str(dtype).removeprefix("torch.")
        if name not in ROW_TYPES:
            raise RevelioError(f"Activations must be stored as one of {', '.join(ROW_TYPES)}; got {name}.")
        self._folder, self._dtype = Path(folder), dtype
        self._shard_bytes, self._shard_items, self._budget = shard_bytes, shard_items, budget_bytes
        self._row_bytes = source.d_model * torch.finfo(dtype).bits // 8 + 4 + 8
        self._manifest, self._disk_bytes = _open_folder(self._folder, Manifest(source, name))
        self._listed = self._manifest  # the manifest that is on disk
        self._before = self.done_items
        self._open: dict[int, _Item] = {}
        self._ready: list[_Item] = []
        self._ready_rows = 0
        self._finished: set[int] = set()
        self._full = False

    @property
    def done_items(self) -> Items:
        """The items that are complete on disk."""
        return self._manifest.items

    def add(self, item: int, timestep: float, rows: Tensor) -> None:
        """Add the rows [n, d_model] of an item at one timestep; with a source grid, n = height * width."""
        item = operator.index(item)
        if item in self._before:
            return
        if not 0 <= item < ITEM_END or item in self._finished:
            raise RevelioError(f"Item {item} was finished before, or is not a valid item number.")
        self._check(item, timestep, rows)
        kept = rows.detach().to("cpu", self._dtype, copy=True)
        self._check_values(item, timestep, rows, kept)
        entry = self._open.setdefault(item, _Item(item))
        entry.parts.append(kept)
        entry.timesteps.append(float(timestep))
        entry.rows += len(kept)
        self._check_budget(entry)

    def finish_item(self, item: int) -> None:
        """Mark an item as complete, after all its rows have been added."""
        item = operator.index(item)
        if item in self._before:
            return
        entry = self._open.get(item)
        if entry is None:
            raise RevelioError(f"Item {item} cannot be finished: it has no rows, or was finished before.")
        self._check_budget(entry)
        if (self._ready_rows + entry.rows) * self._row_bytes > self._shard_bytes:
            self._flush()
        self._finished.add(item)
        self._ready.append(self._open.pop(item))
        self._ready_rows += entry.rows
        if self._ready_rows * self._row_bytes >= self._shard_bytes or len(self._ready) >= self._shard_items:
            self._flush()

    def close(self) -> None:
        """Write the remaining complete items; raise RevelioError if an item is still incomplete."""
        self._flush()
        if self._open:
            raise RevelioError(f"Item {min(self._open)} was begun but not finished; harvest it again.")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(RevelioError):  # the first error is the one to report
            self._flush()

    def _flush(self) -> None:
        """Write the complete items as one shard, then list the shard in the manifest."""
        if self._ready:
            items = sorted(self._ready, key=lambda item: item.number)
            name = next_name(self._manifest)
            shard = Shard(name, sum(item.rows for item in items), Items.of(item.number for item in items))
            tensor_file.write(self._folder / name, _tensors(items), {})
            # This order matters: an interrupt between two lines can lose items, which the next run harvests
            # again, but it cannot make items be written twice.
            self._ready, self._ready_rows = [], 0
            self._manifest = replace(self._manifest, shards=(*self._manifest.shards, shard))
            self._disk_bytes += (self._folder / name).stat().st_size
        if self._listed is not self._manifest:
            write_manifest(self._folder, self._manifest)
            self._listed = self._manifest

    def _check(self, item: int, timestep: float, rows: Tensor) -> None:
        source = self._manifest.source
        if rows.ndim != 2 or rows.shape[1] != source.d_model or not len(rows) or not rows.is_floating_point():
            raise RevelioError(
                f"The rows of item {item} must be floating-point numbers [n, {source.d_model}], "
                f"not {list(rows.shape)} of {rows.dtype}."
            )
        if source.grid is not None and len(rows) != math.prod(source.grid):
            raise RevelioError(
                f"Item {item} has {len(rows)} tokens, but this source needs a full grid of {source.grid}."
            )
        if not abs(timestep) < 1e30:
            raise RevelioError(f"Item {item} has the timestep {timestep}, which is out of range.")

    def _check_values(self, item: int, timestep: float, rows: Tensor, kept: Tensor) -> None:
        if bool(kept.isfinite().all()):
            return
        where = f"Item {item} at timestep {timestep:g}"
        if not bool(rows.isfinite().all()):
            raise RevelioError(
                f"{where} has activations that are not finite; run the model in higher precision."
            )
        name = self._manifest.dtype
        better = "bfloat16 or float32" if name == "float16" else "float32"
        raise RevelioError(
            f"{where} has activations up to {float(rows.abs().max()):g}, but the largest {name} is "
            f"{torch.finfo(self._dtype).max:g}; store them as {better}."
        )

    def _check_budget(self, entry: _Item) -> None:
        """Raise BudgetReached if this item and the unwritten complete items do not fit into the budget."""
        if self._budget is None:
            return
        rows = self._ready_rows + entry.rows
        need = self._disk_bytes + rows * self._row_bytes + 2 * _HEADER_BYTES
        if self._full or need > self._budget:
            self._full = True
            self._open.clear()
            self._flush()
            raise BudgetReached(
                f"{self._folder} has reached its budget of {self._budget} bytes "
                f"with {len(self.done_items)} items; raise the budget or continue with these."
            )


def _open_folder(folder: Path, new: Manifest) -> tuple[Manifest, int]:
    """Remove the files left by a kill; return the manifest (else `new`) and the shards' total bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise RevelioError(f"{folder} cannot be used ({error.strerror}); choose another folder.") from None
    manifest = new
    if MANIFEST in names:
        manifest = read_manifest(folder)
        if (difference := manifest.difference(new)) is not None:
            raise RevelioError(f"{folder} contains other activations: {difference}; choose another folder.")
    elif any(SHARD_NAME.fullmatch(name) for name in names):
        raise RevelioError(f"{folder} contains shards without their {MANIFEST}; choose another folder.")
    size = sum(file.bytes for file in check_shards(folder, manifest))
    _remove_leftovers(folder, names, {shard.name for shard in manifest.shards})
    if MANIFEST not in names:
        write_manifest(folder, manifest)
    return manifest, size


def _remove_leftovers(folder: Path, names: list[str], listed: set[str]) -> None:
    for name in names:
        if (SHARD_NAME.fullmatch(name) and name not in listed) or LEFTOVER_NAME.fullmatch(name):
            try:
                (folder / name).unlink()
            except OSError as error:
                raise RevelioError(f"{folder / name} cannot be removed ({error.strerror}).") from None


def _tensors(items: list[_Item]) -> dict[str, Tensor]:
    timesteps = [
        torch.full((len(part),), timestep, dtype=torch.float32)
        for item in items
        for part, timestep in zip(item.parts, item.timesteps, strict=True)
    ]
    return {
        "x": torch.cat([part for item in items for part in item.parts]),
        "timestep": torch.cat(timesteps),
        "item": torch.cat([torch.full((item.rows,), item.number, dtype=torch.int64) for item in items]),
    }
