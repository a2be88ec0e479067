"""Activations of several hook points while ComfyUI samples, kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ... import hookpoints
from ...hookpoints.point import Captured
from ..comfy_types import Model
from ..taps.model import network_of, tap
from ..taps.runs import ModelCall, Run

Generate = Callable[[Model], None]
"""Generates images with the model it is given; everything it samples is harvested."""


def harvest(
    model: Model, names: Sequence[str], generate: Generate, *, role: str = "cond"
) -> dict[str, Tensor]:
    """Run `generate` on a tapped clone and return the maps of each hook point, float16.

    [steps, items, H, W, width], or [steps, items, frames, H, W, width] of videos. Items are in the order in
    which they were sampled; all runs must have the same steps and size. Only `role` is kept.
    """
    kept: dict[str, list[list[Tensor]]] = {name: [] for name in names}
    tapped = model
    for name, runs in kept.items():

        def keep(tokens: Tensor, call: ModelCall, runs: list[list[Tensor]] = runs) -> None:
            grid = tokens.reshape(len(tokens), *call.grid, tokens.shape[2])
            runs[-1].append(grid.to("cpu", torch.float16, copy=True))

        def start(_run: Run, runs: list[list[Tensor]] = runs) -> None:
            runs.append([])

        tapped = listen(tapped, name, keep, role=role, on_start=start)
    generate(tapped)
    return {name: torch.cat([torch.stack(run) for run in runs], dim=1) for name, runs in kept.items()}


def listen(
    model: Model,
    name: str,
    receive: Callable[[Tensor, ModelCall], None],
    *,
    role: str = "cond",
    captured: Captured = "output",
    on_start: Callable[[Run], None] | None = None,
) -> Model:
    """A clone of the model that shows `receive` the tokens [B, T, d] of a hook point and changes nothing.

    Each step counts once, by the first time that the sampler evaluates it, and only conditionings of `role`.
    """

    def receive_once(tokens: Tensor, call: ModelCall, _run: Run) -> None:
        if call.role == role and call.evaluation == 0:
            receive(tokens.detach(), call)

    hook_point = hookpoints.resolve(network_of(model.model), name)
    return tap(model, hook_point, receive_once, captured=captured, on_start=on_start)
