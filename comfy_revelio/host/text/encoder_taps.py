"""Taps on a text encoder: reading or changing the hidden states of one layer while it encodes.

ComfyUI runs no wrappers while it encodes text, so a tapped CLIP carries a thin stand-in for its text model.
The stand-in hooks the layer for the length of one encoding and passes everything else through. The text
model itself is shared with the source CLIP and is never left with a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Integral
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint
from .layers import TextLayer, encoders_of, resolve_layer

__all__ = ["HiddenFunction", "TextLayer", "encoders_of", "resolve_layer", "steer_text", "text_hidden"]

# fn(hidden [rows, T, d], keep [rows, T] bool) -> new hidden, or the same tensor to change nothing
HiddenFunction = Callable[[Tensor, Tensor], Tensor]
# One prompt's tokens for one encoder: sections of (token, weight) pairs.
Sections = Sequence[Sequence[tuple[Any, ...]]]

BATCH = 16
EMBEDDING = "(embedding)"
"""How a textual inversion is spelled."""


def steer_text(clip: Any, layer: TextLayer, change: HiddenFunction) -> Any:
    """A clone of `clip` whose hidden states at `layer` go through `change` in every encoding.

    `change` sees one row per section (77 tokens of CLIP), never the empty prompt that ComfyUI encodes beside
    weighted prompts. `keep` marks the prompt's own tokens (no start, end or padding).
    """
    clone = clip.clone()
    clone.cond_stage_model = TappedTextModel(clip.cond_stage_model, layer, change)
    return clone


def text_hidden(clip: Any, prompts: Sequence[str], layer: TextLayer) -> tuple[Tensor, Tensor]:
    """Hidden states of the prompts at `layer` on the CPU, one row per section (77 tokens of CLIP).

    Returns float32 [rows, T, d], and bool [rows, T] that marks the prompts' own tokens. Rows of encoders
    whose sections have no fixed length are filled up with zeros behind.
    """
    hidden: list[Tensor] = []
    keep: list[Tensor] = []

    def read(states: Tensor, kept: Tensor) -> Tensor:
        hidden.append(states.detach().float().cpu().clone())
        keep.append(kept.cpu())
        return states

    reader = steer_text(clip, layer, read)
    for batch in _batches([clip.tokenize(prompt) for prompt in prompts]):
        comfy.model_management.throw_exception_if_processing_interrupted()
        reader.encode_from_tokens(_joined(batch))
    longest = max((states.shape[1] for states in hidden), default=0)
    padded = [nn.functional.pad(states, (0, 0, 0, longest - states.shape[1])) for states in hidden]
    kept = [nn.functional.pad(marks, (0, longest - marks.shape[1])) for marks in keep]
    return torch.cat(padded), torch.cat(kept)


def words_of(clip: Any, prompt: str, layer: TextLayer, length: int) -> list[str]:
    """What stands at each position of a prompt as the layer's encoder gets it, its sections end to end.

    length: positions of a section. Start, end and padding are marked as their tokenizer calls them, such as
    <|endoftext|>; a textual inversion is "(embedding)".
    """
    tokenizer = getattr(clip.tokenizer, layer.encoder, None)
    names = getattr(tokenizer, "inv_vocab", {})
    words: list[str] = []
    for section in _sections_for(clip.tokenize(prompt), layer.encoder):
        row = [_word(token, names) for token, *_ in section[:length]]
        words += row + [""] * (length - len(row))
    return words


def kept_positions(clip: Any, prompt: str, layer: TextLayer) -> Tensor:
    """The prompt's own tokens (no start, end or padding): bool [sections, T]."""
    sections = _sections_for(clip.tokenize(prompt), layer.encoder)
    special = getattr(clip.cond_stage_model, layer.encoder).special_tokens
    return _content(sections, special, max(len(section) for section in sections))


def tokens_of(clip: Any, prompt: str, encoder: str) -> tuple[list[list[str]], Tensor]:
    """A prompt as an encoder gets it: each section's tokens as the vocabulary spells them, and which of them
    are the prompt's own: bool [sections, T]. A textual inversion is "(embedding)"."""
    names = getattr(getattr(clip.tokenizer, encoder, None), "inv_vocab", {})
    sections = _sections_for(clip.tokenize(prompt), encoder)
    special = getattr(clip.cond_stage_model, encoder).special_tokens
    keep = _content(sections, special, max((len(section) for section in sections), default=0))
    spelled = [
        [
            str(names.get(int(token), "")) if isinstance(token, Integral) else EMBEDDING
            for token, *_ in section
        ]
        for section in sections
    ]
    return spelled, keep


def _word(token: Any, names: dict[int, str]) -> str:
    if not isinstance(token, Integral):
        return EMBEDDING
    name = names.get(int(token), f"token {int(token)}")
    return name.removesuffix("</w>").replace("\u2581", " ").replace("\u0120", " ").strip() or name


class TappedTextModel:
    """Stands in for a text model and taps one layer while it encodes; all else is the model's own."""

    def __init__(self, model: Any, layer: TextLayer, change: HiddenFunction) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_change", change)

    def encode_token_weights(self, token_weight_pairs: Any) -> Any:
        sections = [_sections_for(token_weight_pairs, part.encoder) for part in self._layer.parts]
        if not all(sections):
            return self._model.encode_token_weights(token_weight_pairs)
        if len(sections) == 1:
            return self._encode(token_weight_pairs, sections, [self._change])
        return self._encode_joined(token_weight_pairs, sections)

    def _encode(
        self, token_weight_pairs: Any, sections: Sequence[Sections], changes: Sequence[HiddenFunction]
    ) -> Any:
        """One encoding, with each part's change hooked to its layer."""
        with ExitStack() as stack:
            for part, own, change in zip(self._layer.parts, sections, changes, strict=True):
                encoder = getattr(self._model, part.encoder)
                stack.enter_context(_hooked(encoder, part.hook_point, own, change))
            return self._model.encode_token_weights(token_weight_pairs)

    def _encode_joined(self, token_weight_pairs: Any, sections: Sequence[Sections]) -> Any:
        """The encoders run one after the other, so what depends on both is read first and put in by a second
        encoding, which is the same up to these layers."""
        seen: dict[int, tuple[Tensor, Tensor]] = {}

        def reader(number: int) -> HiddenFunction:
            def read(hidden: Tensor, keep: Tensor) -> Tensor:
                seen[number] = (hidden.float().clone(), keep)
                return hidden

            return read

        plain = self._encode(token_weight_pairs, sections, [reader(n) for n in range(len(sections))])
        states = [seen[number][0] for number in sorted(seen)]
        if len(states) != len(sections) or len({part.shape[:2] for part in states}) > 1:
            raise RevelioError(
                "The text encoders of this CLIP split the prompt into unlike sections, so their hidden "
                "states cannot be joined; use an SAE of one encoder."
            )
        joined = torch.cat(states, dim=-1)
        changed = self._change(joined, seen[0][1])
        if changed is joined:
            return plain
        pieces = changed.split([part.shape[-1] for part in states], dim=-1)
        return self._encode(token_weight_pairs, sections, [_put(piece) for piece in pieces])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_model", "_layer", "_change"):
            raise AttributeError(name)  # copying and pickling ask before these exist
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)


def _put(states: Tensor) -> HiddenFunction:
    return lambda _hidden, _keep: states


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

    The end token also pads CLIP-L, so a section's content ends at its first end token. Language models have
    none; some of them are padded on the left.
    """
    keep = torch.zeros(len(sections), length, dtype=torch.bool)
    start, end, pad = special.get("start"), special.get("end"), special.get("pad")
    for row, section in enumerate(sections):
        for position, (token, *_) in enumerate(section[:length]):
            if isinstance(token, Integral):
                if token == end:
                    break
                if token == start or (end is None and token == pad):
                    continue
            keep[row, position] = True  # a token, or a row of a textual inversion
    return keep


def _sections_for(token_weight_pairs: Any, encoder: str) -> Sections:
    """The sections that an encoder is going to get. Keys are its name, or what is left without "clip_"."""
    if not isinstance(token_weight_pairs, dict):
        return token_weight_pairs
    for name in (encoder, encoder.removeprefix("clip_"), encoder.split("_")[0]):
        if name in token_weight_pairs:
            sections: Sections = token_weight_pairs[name]
            return sections
    return ()


def _batches(tokenized: Sequence[dict[str, list[Any]]]) -> Iterator[list[dict[str, list[Any]]]]:
    """Runs of prompts whose sections have one length, as one encoding needs it, at most BATCH in each."""
    batch: list[dict[str, list[Any]]] = []
    for tokens in tokenized:
        lengths = {
            key: {len(section) for one in (*batch, tokens) for section in one.get(key, ())} for key in tokens
        }
        if batch and (len(batch) == BATCH or any(len(found) > 1 for found in lengths.values())):
            yield batch
            batch = []
        batch.append(tokens)
    if batch:
        yield batch


def _joined(tokenized: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Several tokenized prompts as the sections of one, to encode them in one batch, without weights."""
    joined: dict[str, list[Any]] = {}
    for tokens in tokenized:
        for key, sections in tokens.items():
            plain = [[(pair[0], 1.0) for pair in section] for section in sections]
            joined.setdefault(key, []).extend(plain)
    return joined
