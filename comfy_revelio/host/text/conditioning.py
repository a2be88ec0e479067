"""Steer a finished CONDITIONING, if it contains the hidden states that a text SAE reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import RevelioError
from ...steering.prompt_states import TokenScope
from ..comfy_types import Clip, Conditioning
from ..sae_files import SAEHandle
from .concept import NO_CHANGE, ConceptPrompts, Method, check_choices, find_change, on_device
from .content_tokens import content_of_prompt
from .encoder_taps import HiddenFunction, TextLayer, encoders_of, resolve_layer


def steer_conditioning(
    conditioning: Conditioning,
    clip: Clip,
    sae: SAEHandle,
    prompts: ConceptPrompts,
    strength: float,
    method: Method = "contrast",
    *,
    tokens: TokenScope = "auto",
    text: str = "",
) -> tuple[Conditioning, str]:
    """Return (a steered copy of the conditioning, a report of what was found).

    The result equals that of Steer Concept before encoding (bit for bit without prompt weights), because
    `clip` puts the layer's hidden states into the conditioning unchanged. Pooled outputs are not steered.
    text: the text that was encoded; it shows which tokens are content. Without `text`, all positions count as
    content but the first of each section, and tokens = "content" is refused.
    Raises RevelioError if the conditioning does not contain the layer that the SAE reads.
    """
    check_choices(method, strength, tokens)
    dictionary = sae.dictionary
    layer = resolve_layer(clip, dictionary.hook_point, dictionary.d_model, sae.title)
    channels, wide = consumed_channels(clip, layer, sae.title)
    if tokens == "content" and not text.strip():
        raise RevelioError(
            "Content tokens cannot be found without the text; write the text that was encoded."
        )
    if strength == 0:
        return conditioning, NO_CHANGE
    plus, _, report = find_change(clip, sae, layer, prompts, strength, method, tokens)
    change = on_device(dictionary, plus)
    content = content_of_prompt(clip, text, layer.encoder) if text.strip() else None
    for states, _ in conditioning:
        if states.shape[-1] != wide:
            raise RevelioError(
                f"This conditioning is {states.shape[-1]} wide, but this CLIP makes conditionings "
                f"{wide} wide: connect the CLIP that made it, or steer before encoding with Steer Concept."
            )
    steered = [[_changed(states, channels, content, change), dict(more)] for states, more in conditioning]
    return steered, report


def consumed_channels(clip: Clip, layer: TextLayer, title: str) -> tuple[slice, int]:
    """Return (channels with the hidden states of `layer`, total width) of this CLIP's conditionings.

    Raises RevelioError unless the encoder, with its CLIP skip, outputs this layer without a norm, as the two
    encoders of SDXL do.
    """
    starts: dict[str, int] = {}
    total = 0
    for name, encoder in encoders_of(clip.cond_stage_model).items():
        starts[name] = total
        total += int(encoder.transformer.get_input_embeddings().weight.shape[1])
    stop = first = starts[layer.encoder]
    for part in layer.parts:
        encoder = getattr(clip.cond_stage_model, part.encoder)
        number = int(part.hook_point.name.rsplit(".", 1)[1])
        given = _consumed_layer(clip, encoder)
        if given != number or starts[part.encoder] != stop:
            known = "its last layer after a norm" if given is None else f"layer {given}"
            raise RevelioError(
                f"{title} reads {part.hook_point.name} of {part.encoder}, but a conditioning of this CLIP "
                f"contains {known}: steer before encoding with Steer Concept, or use an SAE of the "
                "layer that it contains."
            )
        stop += part.hook_point.width
    return slice(first, stop), total


def _consumed_layer(clip: Clip, encoder: Any) -> int | None:
    """Return the number of the layer whose output the encoder returns unchanged, or None."""
    layer, index, *_ = getattr(encoder, "options_default", ("last", None))
    if clip.layer_idx is not None and layer in ("last", "hidden"):
        skips = abs(clip.layer_idx) <= encoder.num_layers
        layer, index = ("hidden", clip.layer_idx) if skips else ("last", None)
    if layer != "hidden" or encoder.layer_norm_hidden_state or not isinstance(index, int):
        return None
    return index if index >= 0 else int(encoder.num_layers) + index


def _changed(states: Tensor, channels: slice, content: Tensor | None, change: HiddenFunction) -> Tensor:
    """Apply `change` to the states [rows, T, D] of one conditioning, whose T positions join all sections."""
    if content is None:
        length = 77 if states.shape[1] % 77 == 0 else states.shape[1]
        content = torch.ones(states.shape[1] // length, length, dtype=torch.bool)
        content[:, 0] = False
    if content.numel() != states.shape[1]:
        raise RevelioError(
            f"This conditioning has {states.shape[1]} positions, but the text makes {content.numel()}; write "
            "the text that was encoded."
        )
    sections, length = content.shape
    result = states.clone()
    hidden = result[..., channels].reshape(-1, length, channels.stop - channels.start)
    changed = change(hidden, content.repeat(states.shape[0], 1).to(hidden.device))
    result[..., channels] = changed.reshape(states.shape[0], sections * length, -1).to(result.dtype)
    return result
