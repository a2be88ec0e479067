"""Steering a diffusion model: the engine's intervention, applied inside the model's own calls."""

from __future__ import annotations

import math

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .. import steering
from ..steering import Intervention, TokenContext
from .sae_files import SAEHandle
from .taps.model import resolve, tap
from .taps.runs import ModelCall, Run


def steer(
    model: ModelPatcher, intervention: Intervention, sae: SAEHandle, hook_point: str = ""
) -> ModelPatcher:
    """A clone of `model` steered at `hook_point` (empty: the SAE's own).

    With nothing to do (strength 0, no features, an empty range) the clone carries no tap at all.
    """
    dictionary = sae.dictionary
    point = resolve(model, hook_point.strip() or dictionary.hook_point, dictionary.d_model, sae.title)
    intervention.selection.check_source(point.name)
    if not intervention.active:
        return model.clone()

    def change(tokens: Tensor, call: ModelCall, _run: Run) -> Tensor | None:
        # a video's frames are steered as pictures of one batch item
        *frames, height, width = call.grid
        count = math.prod(frames)
        items = tuple(item for item in call.items for _ in range(count))
        context = TokenContext(call.role, (height, width), items, call.percent, call.timestep)
        # the SAE is on the same device, unless ComfyUI could not load it there
        pictures = tokens.to(dictionary.W_enc.device).unflatten(1, (count, height * width)).flatten(0, 1)
        change = steering.delta(pictures, intervention, context)
        if change is None:
            return None
        return change.expand(len(pictures), -1, -1).reshape(tokens.shape)

    return tap(model, point, change, captured=dictionary.captured, weights=sae.patcher)
