"""Taps on a CLIP text encoder: reading or changing the hidden states of one layer while it encodes.

ComfyUI runs no wrappers while it encodes text, so a tapped CLIP carries a thin stand-in for its text model.
The stand-in hooks the layer for the length of one encoding and passes everything else through. The text
model itself is shared with the source CLIP and is never left with a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from .. import hookpoints
from ..errors import RevelioError
from ..hookpoints import HookPoint
from ..hookpoints.text import layer_number

# fn(hidden [rows, T, d], keep [rows, T] bool) -> new hidden, or the same tensor to change nothing
HiddenFunction = Callable[[Tensor, Tensor], Tensor]
# One prompt's tokens for one encoder: sections of (token, weight) pairs.
Sections = Sequence[Sequence[tuple[Any, ...]]]

BATCH = 16


@dataclass(frozen=True)
class TextLayer:
    """Where a text dictionary reads: the encoder's attribute name (such as "clip_l") and the layer in it."""

    encoder: str
    hook_point: HookPoint


def resolve_layer(clip: Any, name: str, width: int, title: str) -> TextLayer:
    """The layer called `name` in the text encoder of `clip` that is `width` wide.

    `title` is how messages call the SAE. Raises RevelioError when no encoder of this CLIP fits.
    """
    if layer_number(name.strip()) is None:
        raise RevelioError(
            f"{title} reads {name or 'no place that it names'}, which is no layer of a text encoder; choose "
            "an SAE of a text encoder layer, such as one for layers.9."
        )
    encoders = _encoders(clip.cond_stage_model)
    if not encoders:
        raise RevelioError(
            f"{title} reads a CLIP text encoder, and this CLIP has none that can be read; connect the CLIP "
            "of the model that the SAE was trained on."
        )
    problem: RevelioError | None = None
    widths: list[int] = []
    for encoder, module in encoders.items():
        try:
            hook_point = hookpoints.resolve_text(module.transformer, name)
        except RevelioError as error:
            problem = error
            continue
        if not hook_point.width or hook_point.width == width:
            return TextLayer(encoder, hook_point)
        widths.append(hook_point.width)
    if not widths and problem is not None:
        raise problem
    raise RevelioError(
        f"{title} reads hidden states of width {width}, but {name} of this CLIP has width "
        f"{' and '.join(str(width) for width in widths)}; connect the CLIP that the SAE was trained on."
    )


def steer_text(clip: Any, layer: TextLayer, change: HiddenFunction) -> Any:
    """A clone of `clip` whose hidden states at `layer` go through `change` in every encoding.

    `change` sees one row per section of 77 tokens, never the empty prompt that ComfyUI encodes beside
    weighted prompts. `keep` marks the prompt's own tokens (no start, end or padding).
    """
    clone = clip.clone()
    clone.cond_stage_model = TappedTextModel(clip.cond_stage_model, layer, change)
    return clone


def text_hidden(clip: Any, prompts: Sequence[str], layer: TextLayer) -> tuple[Tensor, Tensor]:
    """Hidden states of the prompts at `layer` on the CPU, one row per section of 77 tokens.

    Returns float32 [rows, T, d], and bool [rows, T] that marks the prompts' own tokens.
    """
    hidden: list[Tensor] = []
    keep: list[Tensor] = []

    def read(states: Tensor, kept: Tensor) -> Tensor:
        hidden.append(states.detach().float().cpu().clone())
        keep.append(kept.cpu())
        return states

    reader = steer_text(clip, layer, read)
    for start in range(0, len(prompts), BATCH):
        comfy.model_management.throw_exception_if_processing_interrupted()
        reader.encode_from_tokens(
            _joined([clip.tokenize(prompt) for prompt in prompts[start : start + BATCH]])
        )
    return torch.cat(hidden), torch.cat(keep)


class TappedTextModel:
    """Stands in for a text model and taps one layer while it encodes; all else is the model's own."""

    def __init__(self, model: Any, layer: TextLayer, change: HiddenFunction) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_change", change)

    def encode_token_weights(self, token_weight_pairs: Any) -> Any:
        sections = _sections_for(token_weight_pairs, self._layer.encoder)
        if not sections:
            return self._model.encode_token_weights(token_weight_pairs)
        with _hooked(
            getattr(self._model, self._layer.encoder), self._layer.hook_point, sections, self._change
        ):
            return self._model.encode_token_weights(token_weight_pairs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_model", "_layer", "_change"):
            raise AttributeError(name)  # copying and pickling ask before these exist
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)


@contextmanager
def _hooked(
    encoder: Any, hook_point: HookPoint, sections: Sections, change: HiddenFunction
) -> Iterator[None]:
    """The hook of one encoding on the encoder's layer, removed when the encoding ends."""

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        rows = states[: len(sections)]  # a weighted prompt has an empty prompt as its last row
        keep = _content(sections, encoder.special_tokens, states.shape[1]).to(states.device)
        changed = change(rows, keep)
        if changed is rows:
            return None
        # A new tensor: the next layer adds to what it gets in place.
        result = torch.cat([changed.to(states), states[len(sections) :]])
        return (result, *output[1:]) if isinstance(output, tuple) else result

    module = hookpoints.module_of(encoder.transformer, hook_point)
    # First in line, so that of two taps on one layer the one nearer to the loader acts first.
    hook = module.register_forward_hook(torch.compiler.disable(after), prepend=True)
    try:
        yield
    finally:
        hook.remove()


def _content(sections: Sections, special: dict[str, Any], length: int) -> Tensor:
    """Which positions hold the prompt's own tokens: bool [sections, length].

    The end token also pads CLIP-L, so a section's content ends at its first end token.
    """
    keep = torch.zeros(len(sections), length, dtype=torch.bool)
    start, end, pad = special.get("start"), special.get("end"), special.get("pad")
    for row, section in enumerate(sections):
        for position, (token, *_) in enumerate(section[:length]):
            if isinstance(token, Integral):
                if token == end or (end is None and token == pad):
                    break
                if token == start:
                    continue
            keep[row, position] = True  # a token, or a row of a textual inversion
    return keep


def _encoders(model: Any) -> dict[str, Any]:
    """The CLIP text encoders inside a text model, by attribute name: clip_l, clip_g."""
    found: dict[str, Any] = {}
    for name, child in model.named_children():
        transformer = getattr(child, "transformer", None)
        if transformer is not None and hasattr(getattr(transformer, "text_model", None), "encoder"):
            found[name] = child
    return found


def _sections_for(token_weight_pairs: Any, encoder: str) -> Sections:
    """The sections that the encoder called `encoder` is going to get: keys are its name without "clip_"."""
    if not isinstance(token_weight_pairs, dict):
        return token_weight_pairs
    name = encoder.removeprefix("clip_")
    sections: Sections = token_weight_pairs.get(name, ())
    return sections


def _joined(tokenized: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Several tokenized prompts as the sections of one, to encode them in one batch, without weights."""
    joined: dict[str, list[Any]] = {}
    for tokens in tokenized:
        for key, sections in tokens.items():
            plain = [[(pair[0], 1.0) for pair in section] for section in sections]
            joined.setdefault(key, []).extend(plain)
    return joined
