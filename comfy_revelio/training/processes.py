"""Several processes that harvest or train together, as `accelerate launch` starts them; or one without it."""

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
    """rank: number of this process, from 0; world: how many there are."""

    rank: int = 0
    world: int = 1

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

    def smallest(self, tensor: Tensor) -> None:
        """Replace a tensor by its smallest values over all processes, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MIN)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.world > 1:
            torch.distributed.barrier()


def join(device: str) -> tuple[Processes, torch.device]:
    """This process's place among those that were started together, and the device that it should use."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        # Those that are done wait for the others, however long these take.
        state = PartialState(cpu=device == "cpu", timeout=timedelta(days=30))
        return Processes(state.process_index, state.num_processes), state.device
    return Processes(), _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _usable(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise RevelioError(f"There is no device {name!r} that torch can use here; try cpu.") from None
