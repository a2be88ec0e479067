"""Read harvested activations from disk, even if they are much larger than the memory.

Rows are read into a buffer of limited size, not memory-mapped, because the mapped pages would count as memory
of the process. Every random choice is a hash of (seed, epoch, ...), so any batch of a long training can be
computed without computing the earlier batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import RevelioError
from .manifest import ShardFile, check_shards, read_manifest
from .seeded_order import seeded_hash, seeded_order

_BLOCK_ROWS = 256
_BLOCKS_PER_WINDOW = 64  # at least this many, so that a window mixes rows from the whole set
_ORDER_BYTES = 32  # memory for shuffling a window, per row
_SPLIT_KEY = 0x5EED
_MAP_ROWS, _MOST_MAP_ROWS = 16_384, 262_144  # limits of `maps`: rows per read, and rows in total

_RawRows = dict[str, np.ndarray]
"""Rows as stored on disk: {name of a shard's tensor: its bytes, uint8 [n, bytes of one row]}."""


@dataclass(frozen=True)
class Batch:
    """A batch of rows or of maps."""

    x: Tensor
    """float32 [b, d] for rows, [b, height, width, d] for maps."""
    timestep: Tensor
    """float32 [b]"""
    item: Tensor
    """int64 [b]"""


class ShardSet:
    """The activations in a folder written by `ShardWriter`, without any shards added after opening the set.

    Rows are numbered across all shards, in the order of the manifest. The rows added in one call of
    `ShardWriter.add` are consecutive: with a source.grid, rows 0 to height * width - 1 are the first map.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Check the manifest and the headers of all shards, without reading any rows."""
        manifest = read_manifest(Path(folder))
        self.source = manifest.source
        self.n_items = len(manifest.items)
        self._files = check_shards(Path(folder), manifest)
        self._ends = np.cumsum([file.rows for file in self._files], dtype=np.int64)
        self._dtype: torch.dtype = getattr(torch, manifest.dtype)
        self._widths = {"x": self.d_model * torch.finfo(self._dtype).bits // 8, "timestep": 4, "item": 8}

    @property
    def d_model(self) -> int:
        return self.source.d_model

    @property
    def n_rows(self) -> int:
        return sum(file.rows for file in self._files)

    @property
    def bytes(self) -> int:
        """Size of the shards on disk."""
        return sum(file.bytes for file in self._files)

    @property
    def row_bytes(self) -> int:
        """Size of one row in bytes, both in a shard and in memory."""
        return sum(self._widths.values())

    def rows(self, index: Tensor) -> Batch:
        """Return the rows whose numbers are in `index`, in the same order."""
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise RevelioError("The row numbers must be a one-dimensional tensor of integers.")
        if not len(index):
            return Batch(torch.empty(0, self.d_model), torch.empty(0), torch.empty(0, dtype=torch.int64))
        numbers, inverse = np.unique(index.cpu().numpy().astype(np.int64), return_inverse=True)
        if not 0 <= numbers[0] <= numbers[-1] < self.n_rows:
            raise RevelioError(f"Rows are numbered from 0 to {self.n_rows - 1}.")
        raw = self._allocate(len(numbers))
        self._read(numbers, raw)
        return self._batch(raw, torch.from_numpy(inverse))

    def maps(self) -> Iterator[Batch]:
        """Yield batches of maps from all parts of the set, up to 262,144 rows in total.

        x: [n, height, width, d], or rows [n, d] if the source has no grid. timestep, item: [n].
        """
        grid = self.source.grid
        cells = 1 if grid is None else grid[0] * grid[1]
        count = max(1, min(self.n_rows, _MOST_MAP_ROWS) // cells)
        picks = torch.linspace(0, self.n_rows // cells - 1, count).long()
        for part in picks.split(max(1, _MAP_ROWS // cells)):
            rows = self.rows((part[:, None] * cells + torch.arange(cells)).flatten())
            x = rows.x if grid is None else rows.x.reshape(len(part), *grid, self.d_model)
            yield Batch(x, rows.timestep[::cells], rows.item[::cells])

    def split(self, held_out: float = 0.1) -> tuple[RowView, RowView]:
        """Split the rows into training rows and held-out rows, so that no item is in both.

        held_out: the approximate share of the items to hold out. Whether an item is held out depends only on
        its number, so harvesting more items does not change it. With few items, either part can be empty.
        """
        if not 0.0 <= held_out < 1.0:
            raise RevelioError(f"The share of held-out rows must be from 0 to below 1, not {held_out}.")
        begins, items = self._runs
        counts = np.diff(begins, append=self.n_rows)
        out = (seeded_hash(items, _SPLIT_KEY) >> np.uint64(11)) * 2.0**-53 < held_out
        return RowView(self, begins[~out], counts[~out]), RowView(self, begins[out], counts[out])

    def rows_of_items(self) -> dict[int, int]:
        """Return {item number: how many rows the item has}."""
        begins, items = self._runs
        numbers, inverse = np.unique(items, return_inverse=True)
        rows = np.bincount(inverse, weights=np.diff(begins, append=self.n_rows)).astype(np.int64)
        return dict(zip(numbers.tolist(), rows.tolist(), strict=True))

    def _allocate(self, n: int) -> _RawRows:
        """Allocate memory for n rows."""
        return {name: np.empty((n, width), np.uint8) for name, width in self._widths.items()}

    def _read(self, rows: np.ndarray, raw: _RawRows) -> None:
        """Read rows, given as ascending row numbers int64 [n], into the first n rows of `raw`."""
        if not len(rows):
            return
        files = np.searchsorted(self._ends, rows, side="right")
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(files) != 0)) + 1
        starts = np.concatenate([[0], breaks])
        stops = np.append(breaks, len(rows))
        stretches = zip(
            files[starts].tolist(), rows[starts].tolist(), starts.tolist(), stops.tolist(), strict=True
        )
        for number, group in groupby(stretches, key=lambda stretch: stretch[0]):
            file = self._files[number]
            first = int(self._ends[number]) - file.rows
            _read_file(file, [(row - first, start, stop) for _, row, start, stop in group], raw)

    def _batch(self, raw: _RawRows, picks: Tensor | slice) -> Batch:
        """Convert the picked raw rows to tensors."""
        x = torch.from_numpy(raw["x"]).view(self._dtype)[picks].float()
        timestep = torch.from_numpy(raw["timestep"]).view(torch.float32)[picks, 0]
        return Batch(x, timestep, torch.from_numpy(raw["item"]).view(torch.int64)[picks, 0])

    @cached_property
    def _runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Find the runs of consecutive rows of one item; return each run's first row and item, int64 [r]."""
        begins, items = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        first = 0
        for file in self._files:
            item_bytes = np.empty((file.rows, 8), np.uint8)
            _read_file(file, [(0, 0, file.rows)], {"item": item_bytes})
            item = item_bytes.view(np.int64)[:, 0]
            at = np.concatenate([[0], np.flatnonzero(item[1:] != item[:-1]) + 1])
            listed = np.concatenate([np.arange(start, last + 1) for start, last in file.items.ranges])
            if not np.array_equal(np.unique(item[at]), listed):
                raise RevelioError(
                    f"{file.path} contains other items than the manifest lists; restore the right file."
                )
            begins.append(at + first)
            items.append(item[at])
            first += file.rows
        return np.concatenate(begins), np.concatenate(items)


class RowView:
    """Some rows of a `ShardSet`, as runs: ascending first rows `begins` and lengths `counts`, int64 [r]."""

    def __init__(self, shards: ShardSet, begins: np.ndarray, counts: np.ndarray) -> None:
        self.shards = shards
        self._ends = np.cumsum(counts)
        self._shifts = begins - (self._ends - counts)
        self.n_rows = int(counts.sum())

    def batches(
        self,
        batch: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        buffer_bytes: int = 512 * 2**20,
    ) -> Iterator[Batch]:
        """Yield shuffled batches without end, starting with batch number `start`.

        An epoch contains each row once, without the rows at the end that do not fill a batch. For the same
        rows, the content of batch i depends only on batch, seed and buffer_bytes. Each of several processes
        gets its share of every batch; together, the shares are the batch that one process would get.
        buffer_bytes: memory for rows. If all rows fit, they are read once and shuffled as a whole. Otherwise
        the buffer is filled again and again with small blocks from everywhere, and shuffled each time.
        """
        if not 0 <= rank < world <= batch:
            raise RevelioError(f"Process {rank} of {world} has no share in a batch of {batch} rows.")
        if start < 0:
            raise RevelioError(f"Batches are numbered from 0; {start} is not a batch.")
        if self.n_rows < batch:
            raise RevelioError(f"There are {self.n_rows} rows, too few for a batch of {batch}; harvest more.")
        share = slice(batch * rank // world, batch * (rank + 1) // world)
        return self._stream(_Shuffle(self, seed, buffer_bytes), batch, share, start)

    def all(self, limit: int | None = None, seed: int = 0) -> Batch:
        """Return all rows, or `limit` random rows (the same for the same seed), in their order on disk."""
        n = self.n_rows if limit is None else min(limit, self.n_rows)
        if n < 1:
            raise RevelioError("There are no activations to measure on; harvest more items.")
        edges = np.arange(n + 1) * self.n_rows // n  # one row from each of n equal stretches
        hashes = (seeded_hash(np.arange(n), seed) >> np.uint64(1)).astype(np.int64)
        rows = edges[:-1] + hashes % np.diff(edges)
        raw = self.shards._allocate(n)
        self._read(rows, raw)
        return self.shards._batch(raw, slice(None))

    def _read(self, rows: np.ndarray, raw: _RawRows) -> None:
        """Read rows into `raw`; rows: ascending numbers within this view (0 to n_rows - 1), int64 [n]."""
        self.shards._read(rows + self._shifts[np.searchsorted(self._ends, rows, side="right")], raw)

    @staticmethod
    def _stream(shuffle: _Shuffle, batch: int, share: slice, start: int) -> Iterator[Batch]:
        per_epoch = shuffle.n_rows // batch
        for number in count(start):
            epoch, position = divmod(number, per_epoch)
            yield shuffle.rows(epoch, position * batch + share.start, position * batch + share.stop)


class _Shuffle:
    """Shuffles the rows of a view in each epoch, with only one window of rows in memory at a time.

    The view's blocks of neighbouring rows are permuted. The permuted blocks are divided into windows of about
    equal size that fit into memory, and the rows within each window are then permuted too.
    """

    def __init__(self, view: RowView, seed: int, buffer_bytes: int) -> None:
        self.n_rows = view.n_rows
        self._view, self._seed = view, seed
        fit = max(1, buffer_bytes // (view.shards.row_bytes + _ORDER_BYTES))
        self._block = max(1, min(_BLOCK_ROWS, fit // _BLOCKS_PER_WINDOW))
        self._blocks = -(-self.n_rows // self._block)
        windows = 1 if fit >= self.n_rows else -(-self._blocks // (fit // self._block))
        self._cuts = np.arange(windows + 1) * self._blocks // windows
        self._raw = view.shards._allocate(min(self.n_rows, int(np.diff(self._cuts).max()) * self._block))
        self._held = np.empty(0, np.int64)  # the blocks now in `_raw`
        self._epoch = self._window = -1

    def rows(self, epoch: int, first: int, stop: int) -> Batch:
        """Return rows first to stop - 1 in the shuffled order of an epoch."""
        if epoch != self._epoch:
            self._begin(epoch)
        parts = []
        while first < stop:
            window = int(np.searchsorted(self._ends, first, side="right")) - 1
            self._load(window)
            begin, end = int(self._ends[window]), int(self._ends[window + 1])
            picks = torch.from_numpy(self._order[first - begin : stop - begin])
            parts.append(self._view.shards._batch(self._raw, picks))
            first = end
        if len(parts) == 1:
            return parts[0]
        return Batch(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "timestep", "item"))
        )

    def _begin(self, epoch: int) -> None:
        self._epoch, self._window = epoch, -1
        self._permuted = seeded_order(self._blocks, self._seed, epoch)
        sizes = np.minimum(self.n_rows - self._permuted * self._block, self._block)  # the last is shorter
        self._ends = np.concatenate([[0], np.cumsum(sizes)])[self._cuts]

    def _load(self, window: int) -> None:
        if window == self._window:
            return
        self._window = window
        blocks = np.sort(self._permuted[self._cuts[window] : self._cuts[window + 1]])
        rows = (blocks[:, None] * self._block + np.arange(self._block)).ravel()
        rows = rows[rows < self.n_rows]
        if not np.array_equal(blocks, self._held):
            self._view._read(rows, self._raw)
            self._held = blocks
        self._order = seeded_order(len(rows), self._seed, self._epoch, window)


def _read_file(file: ShardFile, stretches: list[tuple[int, int, int]], raw: _RawRows) -> None:
    """Read stretches of a shard's rows, given as (first row in the file, start and stop in raw), into raw."""
    try:
        with file.path.open("rb") as handle:
            for name, plane in raw.items():
                for row, start, stop in stretches:
                    part = plane[start:stop]
                    handle.seek(file.starts[name] + row * plane.shape[1])
                    if handle.readinto(part.data) != part.nbytes:
                        raise RevelioError(f"{file.path} has become shorter; restore the right file.")
    except OSError as error:
        raise RevelioError(f"{file.path} cannot be read ({error.strerror}); check the file.") from None
