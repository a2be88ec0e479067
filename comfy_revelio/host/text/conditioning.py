"""Steering a ready CONDITIONING, where it holds the very hidden states that a text SAE reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import RevelioError
from ..sae_files import SAEHandle
from .concept import ConceptPrompts, check_choices, find_change, on_device
from .encoder_taps import TextLayer, encoders_of, kept_positions, resolve_layer


def steer_conditioning(
    conditioning: list[Any],
    clip: Any,
    sae: SAEHandle,
    prompts: ConceptPrompts,
    strength: float,
    method: str = "contrast",
    *,
    tokens: str = "auto",
    text: str = "",
) -> tuple[list[Any], str]:
    """(the conditioning steered, what was found in plain words); the one that came in stays as it is.

    The same as Steer Concept before encoding, to the last digit for prompts without weights: where `clip`
    hands out the layer's hidden states as they are. text: what was encoded, to tell the prompt's own tokens;
    without it what is put in goes to every position but the first of each section, and tokens = "content"
    is refused. Pooled outputs are not changed.
    Raises RevelioError when the conditioning does not hold that layer.
    """
    check_choices(method, strength, tokens)
    dictionary = sae.dictionary
    layer = resolve_layer(clip, dictionary.hook_point, dictionary.d_model, sae.title)
    channels, wide = consumed_channels(clip, layer, sae.title)
    if tokens == "content" and not text.strip():
        raise RevelioError(
            "A conditioning does not tell which tokens are content; write the text that was encoded."
        )
    if strength == 0:
        return conditioning, "Strength 0: nothing is changed."
    plus, _, words = find_change(clip, sae, layer, prompts, strength, method, tokens)
    change = on_device(dictionary, plus)
    keep = kept_positions(clip, text, layer) if text.strip() else None
    for states, _ in conditioning:
        if states.shape[-1] != wide:
            raise RevelioError(
                f"This conditioning is {states.shape[-1]} wide, but the encoders of this CLIP side by side "
                f"are {wide}: connect the CLIP that made it, or steer before encoding with Steer Concept."
            )
    return [[_changed(states, channels, keep, change), dict(more)] for states, more in conditioning], words


def consumed_channels(clip: Any, layer: TextLayer, title: str) -> tuple[slice, int]:
    """(where in a conditioning the hidden states of `layer` stand, how wide the conditioning must be).

    They stand there when the encoder hands out this layer (CLIP skip and all) without a norm behind it, as
    the two encoders of SDXL do. Raises RevelioError when they do not.
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
            known = "its last layer behind a norm" if given is None else f"layer {given}"
            raise RevelioError(
                f"{title} reads {part.hook_point.name} of {part.encoder}, but a conditioning of this CLIP "
                f"holds {known}: steer before encoding with Steer Concept, or use an SAE of the layer that "
                "it holds."
            )
        stop += part.hook_point.width
    return slice(first, stop), total


def _consumed_layer(clip: Any, encoder: Any) -> int | None:
    """The layer whose output the encoder hands out as it is, or None."""
    layer, index, *_ = getattr(encoder, "options_default", ("last", None))
    if clip.layer_idx is not None and layer in ("last", "hidden"):
        skips = abs(clip.layer_idx) <= encoder.num_layers
        layer, index = ("hidden", clip.layer_idx) if skips else ("last", None)
    if layer != "hidden" or encoder.layer_norm_hidden_state or not isinstance(index, int):
        return None
    return index if index >= 0 else int(encoder.num_layers) + index


def _changed(states: Tensor, channels: slice, keep: Tensor | None, change: Any) -> Tensor:
    """One conditioning [rows, T, d], whose sections stand end to end."""
    if keep is None:
        length = 77 if states.shape[1] % 77 == 0 else states.shape[1]
        keep = torch.ones(states.shape[1] // length, length, dtype=torch.bool)
        keep[:, 0] = False
    if keep.numel() != states.shape[1]:
        raise RevelioError(
            f"This conditioning has {states.shape[1]} positions, but the text makes {keep.numel()}; write "
            "the text that was encoded."
        )
    sections, length = keep.shape
    result = states.clone()
    hidden = result[..., channels].reshape(-1, length, channels.stop - channels.start)
    changed = change(hidden, keep.repeat(states.shape[0], 1).to(hidden.device))
    result[..., channels] = changed.reshape(states.shape[0], sections * length, -1).to(result.dtype)
    return result
