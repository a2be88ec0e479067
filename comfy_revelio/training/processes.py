"""Coordinate the processes that harvest or train together (started by `accelerate launch`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from ..errors import RevelioError


@dataclass(frozen=True)
class Processes:
    """The index of this process, and the number of processes that were started together."""

    rank: int = 0
    """Index of this process, from 0."""
    world: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that reports progress and writes files."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor, in place, by its mean over all processes."""
        if self.world > 1:
            for tensor in tensors:
                if tensor is not None:
                    torch.distributed.all_reduce(tensor)
                    tensor /= self.world

    def minimum(self, tensor: Tensor) -> None:
        """Replace each entry of the tensor, in place, by the minimum over all processes."""
        if self.world > 1:
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MIN)

    def wait(self) -> None:
        """Block until all processes have called this method."""
        if self.world > 1:
            torch.distributed.barrier()


def join_processes(device: str) -> tuple[Processes, torch.device]:
    """Join the other processes, if `accelerate launch` started several. Return them and this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        # finished processes wait for the others, however long that takes
        state = PartialState(cpu=device == "cpu", timeout=timedelta(days=30))
        return Processes(state.process_index, state.num_processes), state.device
    return Processes(), _checked_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _checked_device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise RevelioError(f"There is no device {name!r} that torch can use here; try cpu.") from None
