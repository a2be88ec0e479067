"""Activations of several hook points while ComfyUI samples, for training dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ... import hookpoints
from ..comfy_types import Model
from ..taps.model import network_of, tap
from ..taps.runs import ModelCall, Run

Generate = Callable[[Model], None]
"""Samples some pictures with the model it is given; everything it samples is harvested."""


def harvest(
    model: Model, names: Sequence[str], generate: Generate, *, role: str = "cond"
) -> dict[str, Tensor]:
    """Run `generate` on a tapped clone and give each hook point's maps, float16.

    [steps, items, H, W, width], or [steps, items, frames, H, W, width] of videos. Items are in the order in
    which they were sampled; all runs must have the same steps and size. Only the conditionings of `role` are
    kept.
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
    take: Callable[[Tensor, ModelCall], None],
    *,
    role: str = "cond",
    captured: str = "output",
    on_start: Callable[[Run], None] | None = None,
) -> Model:
    """A clone of the model that shows `take` the tokens [B, T, d] of a hook point and changes nothing.

    Each step counts once, by the first time that the sampler evaluates it, and only conditionings of `role`.
    """

    def hear(tokens: Tensor, call: ModelCall, _run: Run) -> None:
        if call.role == role and call.evaluation == 0:
            take(tokens.detach(), call)

    hook_point = hookpoints.resolve(network_of(model.model), name)
    return tap(model, hook_point, hear, captured=captured, on_start=on_start)
