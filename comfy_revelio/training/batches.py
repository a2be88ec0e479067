"""Draw batches of activations for training. A batch depends only on the activations, seed and step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..errors import RevelioError
from .processes import Processes
from .shards import RowView

Rows = Tensor | RowView | Callable[[int, Generator], Tensor]
"""Activations: a tensor [N, d], rows on disk, or a function that draws a batch [b, d] for a step."""


class Minibatch(NamedTuple):
    """The activations of one step, on the training device."""

    x: Tensor
    """float32 [b, d]"""
    timestep: Tensor | None
    """float32 [b], or None if the timesteps are unknown."""


def sample_rows(rows: Rows, timesteps: Tensor | None, count: int, batch: int, seed: int) -> Tensor:
    """Return about `count` rows, float32 [n, d], to compute means and scales; all processes get the same."""
    if isinstance(rows, RowView):
        return rows.all(limit=count, seed=seed).x
    parts, stream = [], batches(rows, timesteps, batch, seed, start=-1_000_000)
    for _ in range(max(1, min(16, count // max(1, batch)))):
        parts.append(next(stream).x)
    return torch.cat(parts)


def batches(
    rows: Rows,
    timesteps: Tensor | None,
    batch: int,
    seed: int,
    *,
    start: int = 0,
    processes: Processes | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Minibatch]:
    """Yield batches without end, beginning with the batch of step `start`.

    Each process gets its share of every batch. Together, the shares are the batch that one process would get.
    """
    processes = processes or Processes()
    if isinstance(rows, RowView):
        stream = rows.batches(batch, seed=seed, start=start, rank=processes.rank, world=processes.world)
        for found in stream:
            yield Minibatch(found.x.to(device), found.timestep.to(device))
        return
    if isinstance(rows, Tensor):
        _check(rows, timesteps)
    step = start
    while True:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
        share = slice(processes.rank, None, processes.world)
        if isinstance(rows, Tensor):
            picks = torch.randint(len(rows), (batch,), generator=generator)[share].to(rows.device)
            times = None if timesteps is None else timesteps[picks].to(device, torch.float32)
            yield Minibatch(rows[picks].to(device, torch.float32), times)
        else:
            yield Minibatch(rows(step, generator)[share].to(device, torch.float32), None)
        step += 1


def _check(rows: Tensor, timesteps: Tensor | None) -> None:
    if rows.ndim != 2 or not len(rows):
        raise RevelioError(
            f"Activations to train on must be [rows, width] with at least one row, not {list(rows.shape)}."
        )
    if timesteps is not None and timesteps.shape != rows.shape[:1]:
        raise RevelioError(f"{len(rows)} activations need as many timesteps; got {list(timesteps.shape)}.")
