"""Keep the activations of several hook points in memory while ComfyUI samples."""

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
"""A function that samples images with the model it is given; `harvest` keeps all its sampling runs."""


def harvest(
    model: Model, names: Sequence[str], generate: Generate, *, role: str = "cond"
) -> dict[str, Tensor]:
    """Run `generate` on a tapped clone of the model; return {hook point: activations in float16}.

    Activations are [steps, items, H, W, width], or [steps, items, frames, H, W, width] for videos, and only
    of the role `role`. Items are in sampling order. All runs must share the step count and the image size.
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
    """Return a clone of the model that passes the tokens [B, T, d] at a hook point to `receive`.

    `receive` gets only tokens of the role `role`, from the first evaluation of each step.
    """

    def receive_once(tokens: Tensor, call: ModelCall, _run: Run) -> None:
        if call.role == role and call.evaluation == 0:
            receive(tokens.detach(), call)

    hook_point = hookpoints.resolve(network_of(model.model), name)
    return tap(model, hook_point, receive_once, captured=captured, on_start=on_start)
