"""Taps on a text encoder: read or change the hidden states of one layer during encoding.

ComfyUI runs no wrappers while it encodes text, so a tapped CLIP contains a stand-in for its text model. The
stand-in hooks the layer during each encoding and forwards everything else to the text model. The text model
is shared with the source CLIP; no hook stays on it after an encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint
from ..comfy_types import Clip, Tokens
from .content_tokens import Sections, content_mask, sections_of
from .layers import TextLayer, encoders_of, resolve_layer

__all__ = ["HiddenFunction", "TextLayer", "encoders_of", "resolve_layer", "steer_text", "text_hidden"]

HiddenFunction = Callable[[Tensor, Tensor], Tensor]
"""fn(hidden [rows, T, D], content bool [rows, T]) -> new states, or `hidden` itself to change nothing."""

BATCH = 16
"""The most prompts that are encoded together."""


def steer_text(clip: Clip, layer: TextLayer, change: HiddenFunction) -> Clip:
    """Return a clone of `clip` that replaces its hidden states at `layer` by the result of `change`.

    `change` receives one row per section (77 tokens for CLIP), but not the empty prompt that ComfyUI adds to
    weighted prompts. Its argument `content` marks the prompt's own tokens (no start, end or padding).
    """
    clone = clip.clone()
    clone.cond_stage_model = TappedTextModel(clip.cond_stage_model, layer, change)
    return clone


def text_hidden(clip: Clip, prompts: Sequence[str], layer: TextLayer) -> tuple[Tensor, Tensor]:
    """Return the prompts' hidden states at `layer` and their content mask, on the CPU.

    The states are float32 [rows, T, D], one row per section (77 tokens for CLIP); the mask, bool [rows, T],
    marks the prompts' own tokens. If sections differ in length, rows are padded with zeros.
    """
    hidden: list[Tensor] = []
    content: list[Tensor] = []

    def read(states: Tensor, marks: Tensor) -> Tensor:
        hidden.append(states.detach().float().cpu().clone())
        content.append(marks.cpu())
        return states

    reader = steer_text(clip, layer, read)
    for batch in _batches([clip.tokenize(prompt) for prompt in prompts]):
        comfy.model_management.throw_exception_if_processing_interrupted()
        reader.encode_from_tokens(_join_prompts(batch))
    longest = max((states.shape[1] for states in hidden), default=0)
    padded = [nn.functional.pad(states, (0, 0, 0, longest - states.shape[1])) for states in hidden]
    marked = [nn.functional.pad(marks, (0, longest - marks.shape[1])) for marks in content]
    return torch.cat(padded), torch.cat(marked)


class TappedTextModel:
    """Stands in for a text model: taps one layer during each encoding and forwards all else to the model."""

    def __init__(self, model: Any, layer: TextLayer, change: HiddenFunction) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_change", change)

    def encode_token_weights(self, token_weight_pairs: Any) -> Any:
        """Encode a tokenized prompt; ComfyUI calls this method."""
        sections = [sections_of(token_weight_pairs, part.encoder) for part in self._layer.parts]
        if not all(sections):
            return self._model.encode_token_weights(token_weight_pairs)
        if len(sections) == 1:
            return self._encode(token_weight_pairs, sections, [self._change])
        return self._encode_joined(token_weight_pairs, sections)

    def _encode(
        self, token_weight_pairs: Any, sections: Sequence[Sections], changes: Sequence[HiddenFunction]
    ) -> Any:
        """Encode once; `changes` has one function for each part of the layer."""
        with ExitStack() as stack:
            for part, own, change in zip(self._layer.parts, sections, changes, strict=True):
                encoder = getattr(self._model, part.encoder)
                stack.enter_context(_layer_hook(encoder, part.hook_point, own, change))
            return self._model.encode_token_weights(token_weight_pairs)

    def _encode_joined(self, token_weight_pairs: Any, sections: Sequence[Sections]) -> Any:
        """Encode twice: first to read the states of both encoders, then to change them. One encoding is not
        enough, because the encoders run one after the other and the change depends on both."""
        seen: dict[int, tuple[Tensor, Tensor]] = {}

        def reader(number: int) -> HiddenFunction:
            def read(hidden: Tensor, content: Tensor) -> Tensor:
                seen[number] = (hidden.float().clone(), content)
                return hidden

            return read

        plain = self._encode(token_weight_pairs, sections, [reader(n) for n in range(len(sections))])
        states = [seen[number][0] for number in sorted(seen)]
        if len(states) != len(sections) or len({part.shape[:2] for part in states}) > 1:
            raise RevelioError(
                "The text encoders of this CLIP split the prompt into different sections, so their hidden "
                "states cannot be joined; use an SAE of one encoder."
            )
        joined = torch.cat(states, dim=-1)
        changed = self._change(joined, seen[0][1])
        if changed is joined:
            return plain
        pieces = changed.split([part.shape[-1] for part in states], dim=-1)
        return self._encode(token_weight_pairs, sections, [_replacing(piece) for piece in pieces])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_model", "_layer", "_change"):
            raise AttributeError(name)  # copying and pickling look these names up before __init__ has run
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)


def _replacing(states: Tensor) -> HiddenFunction:
    return lambda _hidden, _content: states


@contextmanager
def _layer_hook(
    encoder: Any, hook_point: HookPoint, sections: Sections, change: HiddenFunction
) -> Iterator[None]:
    """Hook the encoder's layer with `change` for one encoding; the hook is removed when the encoding ends."""

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        rows = states[: len(sections)]  # in weighted prompts, the last row is an empty prompt
        content = content_mask(sections, encoder.special_tokens, states.shape[1]).to(states.device)
        changed = change(rows, content)
        if changed is rows:
            return None
        # a new tensor: the next layer adds to its input in place
        result = torch.cat([changed.to(states), states[len(sections) :]])
        return (result, *output[1:]) if isinstance(output, tuple) else result

    module = hookpoints.module_of(encoder.transformer, hook_point)
    # prepended: if a layer has two taps, the tap nearer to the CLIP loader must act first
    hook = module.register_forward_hook(torch.compiler.disable(after), prepend=True)
    try:
        yield
    finally:
        hook.remove()


def _batches(tokenized: Sequence[Tokens]) -> Iterator[list[Tokens]]:
    """Yield groups of at most BATCH consecutive prompts whose sections all have the same length."""
    batch: list[Tokens] = []
    for tokens in tokenized:
        lengths = {
            key: {len(section) for other in (*batch, tokens) for section in other.get(key, ())}
            for key in tokens
        }
        if batch and (len(batch) == BATCH or any(len(found) > 1 for found in lengths.values())):
            yield batch
            batch = []
        batch.append(tokens)
    if batch:
        yield batch


def _join_prompts(tokenized: Sequence[Tokens]) -> Tokens:
    """Join tokenized prompts into one prompt without weights, to encode all their sections in one batch."""
    joined: Tokens = {}
    for tokens in tokenized:
        for key, sections in tokens.items():
            plain: list[list[tuple[Any, ...]]] = [
                [(pair[0], 1.0) for pair in section] for section in sections
            ]
            joined.setdefault(key, []).extend(plain)
    return joined
