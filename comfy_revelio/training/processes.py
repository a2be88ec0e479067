"""The processes that harvest or train together: those that `accelerate launch` started, or just this one."""

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
    """The rank of this process, and the number of processes that were started together."""

    rank: int = 0
    """Index of this process, from 0."""
    world: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace tensors by their mean over all processes, in place."""
        if self.world > 1:
            for tensor in tensors:
                if tensor is not None:
                    torch.distributed.all_reduce(tensor)
                    tensor /= self.world

    def minimum(self, tensor: Tensor) -> None:
        """Replace a tensor by its minimum over all processes, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MIN)

    def wait(self) -> None:
        """Block until all processes have called this method."""
        if self.world > 1:
            torch.distributed.barrier()


def join_processes(device: str) -> tuple[Processes, torch.device]:
    """Join the processes that were started together; return them and the device for this process."""
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
