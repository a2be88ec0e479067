"""Steer Features: apply an intervention to the tokens at a hook point during the model's calls."""

from __future__ import annotations

import math

from torch import Tensor

from .. import steering
from ..steering import Intervention, TokenContext
from .comfy_types import Model
from .sae_files import SAEHandle
from .taps.model import resolve, tap
from .taps.runs import ModelCall, Run


def steer(model: Model, intervention: Intervention, sae: SAEHandle, hook_point: str = "") -> Model:
    """Return a clone of `model` that is steered at `hook_point` (if empty, at the SAE's hook point).

    If the intervention does nothing (strength 0, no features, an empty range), the clone has no tap.
    """
    dictionary = sae.dictionary
    point = resolve(model, hook_point.strip() or dictionary.hook_point, dictionary.d_model, sae.title)
    intervention.selection.check_source(point.name)
    if not intervention.active:
        return model.clone()

    def change(tokens: Tensor, call: ModelCall, _run: Run) -> Tensor | None:
        # each frame of a video is steered as a separate image that belongs to the same batch item
        *frames, height, width = call.grid
        count = math.prod(frames)
        items = tuple(item for item in call.items for _ in range(count))
        context = TokenContext(call.role, (height, width), items, call.percent, call.timestep)
        # the SAE is on the model's device unless ComfyUI could not load it there
        images = tokens.to(dictionary.W_enc.device).unflatten(1, (count, height * width)).flatten(0, 1)
        delta = steering.delta(images, intervention, context)
        return None if delta is None else delta.expand(len(images), -1, -1).reshape(tokens.shape)

    return tap(model, point, change, captured=dictionary.captured, weights=sae.patcher)
