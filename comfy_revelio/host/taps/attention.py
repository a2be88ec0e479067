"""Taps on attention: the queries of the picture and the keys of the prompt, layer by layer, in a model call.

Nothing is replaced. Where queries and keys are modules of their own (UNets) plain hooks read them, so that
it does not matter which attention runs after them. Elsewhere the function that ComfyUI lets everybody put
around its attention reads them and calls what would have run without it, with the same arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint, TokenGrid
from ...hookpoints.transformers import family_of
from ...hookpoints.unet import is_unet
from .call_hooks import input_of, network_of, part_of

OVERRIDE = "optimized_attention_override"
_JOINT = {
    "Stable Diffusion 3",
    "Flux, Flux.2 and Chroma",
    "Chroma Radiance",
    "Qwen-Image",
    "Lumina 2 and Z-Image",
    "AuraFlow",
}
_PADDED_BEHIND = {"Lumina 2 and Z-Image"}  # the prompt's tokens come first, all else behind them
_CROSS = {"Wan"}


@dataclass(frozen=True)
class Attention:
    """One attention of the picture to a prompt.

    layer: name of the hook point that it belongs to. q: [rows, heads, patches, d], the picture's own tokens
    on `grid` only. k: [rows, heads, keys, d]. text: begin and end of the prompt among the keys. repeats: the
    prompt stands there as often as its length fits (ComfyUI does so to even out lengths). at_end: what the
    family adds to a prompt stands ahead of it, so that the prompt's tokens are the last of `text`.
    mask: as in scaled dot product attention, for these queries, or None.
    """

    layer: str
    grid: tuple[int, ...]
    q: Tensor
    k: Tensor
    text: tuple[int, int]
    repeats: bool
    at_end: bool
    mask: Tensor | None


AttentionCallback = Callable[[Attention], None]


def check_attention(network: nn.Module) -> None:
    """Raises RevelioError for a model whose attention to the prompt cannot be read."""
    family = family_of(network)
    name = family.name if family is not None else type(network).__name__
    if is_unet(network):
        if any(True for _ in _cross_attentions(network)):
            return
    elif name in _JOINT | _CROSS:
        return
    raise RevelioError(
        f"Words cannot be recorded in this model ({name}): its attention to the prompt cannot be read. "
        "They can in Stable Diffusion 1 to 3.5, SDXL, Flux, Chroma, Qwen-Image, Lumina 2, Z-Image, AuraFlow "
        "and Wan."
    )


@contextmanager
def attention_heard(
    base_model: Any, options: Mapping[str, Any], latent: tuple[int, ...], callback: AttentionCallback
) -> Iterator[Mapping[str, Any]]:
    """Shows every attention to the prompt in one model call to `callback`; yields the options to call with.

    latent: shape of the model's input. Hooks are removed when the call ends, also when it fails; the options
    are a copy.
    """
    network = network_of(base_model)
    handles: list[Any] = []  # filled one by one, so that none is left when a later one fails
    try:
        if is_unet(network):
            handles.extend(_hear_projections(network, callback))
            yield options
        else:
            blocks = _Blocks(network, latent, callback)
            handles.extend(blocks.hooks())
            yield {**options, OVERRIDE: blocks.around(options.get(OVERRIDE))}
    finally:
        for handle in handles:
            handle.remove()


def _cross_attentions(network: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """(layer, attention block, cross attention) for each of a UNet."""
    for point in hookpoints.list(network):
        module = hookpoints.module_of(network, point)
        for block in getattr(module, "transformer_blocks", ()):
            attention = getattr(block, "attn2", None)
            if attention is not None and hasattr(attention, "to_q") and hasattr(attention, "to_k"):
                yield point.name, module, attention


def _hear_projections(network: nn.Module, callback: AttentionCallback) -> Iterator[Any]:
    """Hooks on the queries and keys of a UNet's cross attentions, and on the size of each block's map."""
    grids: dict[str, tuple[int, ...]] = {}

    def enter(layer: str) -> Callable[..., None]:
        def note(_module: nn.Module, args: tuple[Any, ...], _kwargs: Any) -> None:
            grids[layer] = tuple(args[0].shape[2:])

        return note

    def hear(layer: str, attention: Any) -> Iterator[Any]:
        queries: list[Tensor] = []

        def query(_module: nn.Module, _args: Any, output: Tensor) -> None:
            queries[:] = [output]

        def key(_module: nn.Module, _args: Any, output: Tensor) -> None:
            if not queries:
                return
            q, k = (_by_head(x, attention.heads) for x in (queries.pop(), output))
            if q.shape[2] == math.prod(grids[layer]):  # another pack may merge patches
                callback(Attention(layer, grids[layer], q, k, (0, k.shape[2]), True, False, None))

        yield attention.to_q.register_forward_hook(torch.compiler.disable(query))
        yield attention.to_k.register_forward_hook(torch.compiler.disable(key))

    seen: set[str] = set()
    for layer, module, attention in _cross_attentions(network):
        if layer not in seen:
            seen.add(layer)
            noted = torch.compiler.disable(enter(layer))
            yield module.register_forward_pre_hook(noted, with_kwargs=True)
        yield from hear(layer, attention)


class _Blocks:
    """The attention of transformer blocks in one model call: which block runs, and what it attends to."""

    def __init__(self, network: nn.Module, latent: tuple[int, ...], callback: AttentionCallback) -> None:
        self._network = network
        self._latent = latent
        self._callback = callback
        self._family = family.name if (family := family_of(network)) is not None else ""
        points = hookpoints.list(network)
        self._points = [point for point in points if point.stream == "image"]
        self._texts = {point.module_path: point for point in points if point.stream == "text"}
        # lists of blocks that keep the prompt's tokens apart; their attention has them ahead of the picture's
        self._apart = {
            _list_of(point) for point in points if point.stream == "text" and self._is_apart(point)
        }
        self._seen: dict[str, int] = {}
        self._running: tuple[HookPoint, int] | None = None  # the block, and tokens of its picture's stream

    def hooks(self) -> Iterator[Any]:
        counted_modules = {
            path for point in (*self._points, *self._texts.values()) for path in point.layout.counted_modules
        }
        for path in counted_modules:
            if (other := part_of(self._network, path)) is not None:
                yield other.register_forward_hook(torch.compiler.disable(self._witness(path)))
        for point in self._points:
            module = hookpoints.module_of(self._network, point)
            if self._family in _CROSS:
                module = getattr(module, "cross_attn", module)
            enter, leave = torch.compiler.disable(self._enter(point)), torch.compiler.disable(self._leave)
            yield module.register_forward_pre_hook(enter, with_kwargs=True)
            yield module.register_forward_hook(leave)

    def around(self, inner: Callable[..., Any] | None) -> Callable[..., Any]:
        """What to put around attention: it hears and then runs `inner`, or what ComfyUI would have run."""
        hear = torch.compiler.disable(self._hear)

        def attend(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self._running is not None:
                hear(self._running, *args, **kwargs)
            return function(*args, **kwargs) if inner is None else inner(function, *args, **kwargs)

        return attend

    def _witness(self, path: str) -> Callable[..., None]:
        def count(_module: nn.Module, _args: Any, output: Any) -> None:
            self._seen[path] = hookpoints.token_count(output)

        return count

    def _enter(self, point: HookPoint) -> Callable[..., None]:
        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            own = input_of(point, args, kwargs)
            self._running = None if own is None else (point, own.shape[1])

        return note

    def _leave(self, *_: Any) -> None:
        self._running = None

    def _hear(
        self,
        running: tuple[HookPoint, int],
        q: Tensor,
        k: Tensor,
        _v: Tensor,
        heads: int,
        mask: Tensor | None = None,
        _precision: Any = None,
        skip_reshape: bool = False,
        *_: Any,
        **_more: Any,
    ) -> None:
        if not skip_reshape:
            q, k = _by_head(q, heads), _by_head(k, heads)
        found = self._lay(*running, q, k)
        if found is None:
            return
        text, span = found
        own = span.tokens(q.transpose(1, 2).flatten(2)).unflatten(2, (q.shape[1], -1)).transpose(1, 2)
        if mask is not None and mask.ndim > 1 and mask.shape[-2] not in (1, own.shape[2]):
            rows = span.tokens(mask.reshape(-1, *mask.shape[-2:]))
            mask = rows.reshape(*mask.shape[:-2], *rows.shape[-2:])
        at_end = self._family not in _PADDED_BEHIND | _CROSS
        self._callback(Attention(running[0].name, span.grid, own, k, text, False, at_end, mask))

    def _lay(
        self, point: HookPoint, stream: int, q: Tensor, k: Tensor
    ) -> tuple[tuple[int, int], TokenGrid] | None:
        """Where the prompt lies among the keys and the picture among the queries, or None."""
        queries, keys = q.shape[2], k.shape[2]
        text_point = self._texts.get(point.module_path)
        if self._family in _CROSS:
            span = self._span_of(point, queries)
            return None if span is None else ((0, keys), span)
        if queries != keys:
            return None
        if _list_of(point) in self._apart:
            ahead, span = keys - stream, self._span_of(point, stream)
            if ahead <= 0 or span is None:  # the picture attends to itself
                return None
            return (0, ahead), replace(span, start=span.start + ahead)
        span = self._span_of(point, queries)
        text_span = None if text_point is None else self._span_of(text_point, queries)
        if span is None or text_span is None:
            return None
        return (text_span.start, text_span.start + text_span.grid[-1]), span

    def _is_apart(self, text: HookPoint) -> bool:
        return any(
            point.module_path == text.module_path and point.element != text.element for point in self._points
        )

    def _span_of(self, point: HookPoint, tokens: int) -> TokenGrid | None:
        """Where the tokens of a stream lie in a sequence of so many, None where they cannot be laid."""
        shape = torch.empty(1, tokens, 1, device="meta")
        span = hookpoints.locate_tokens(shape, point.layout, self._latent, self._seen)
        whole = point.stream == "image" and span.grid == (1, tokens) and tokens > 1
        return None if whole and len(self._latent) > 2 and self._latent[-2] > 1 else span


def _list_of(point: HookPoint) -> str:
    return point.module_path.rpartition(".")[0]


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * d] -> [B, heads, T, d]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
