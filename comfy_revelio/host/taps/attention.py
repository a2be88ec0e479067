"""Taps on attention: read the image's queries and the prompt's keys in every layer during a model call.

No computation is replaced. UNets compute queries and keys in separate modules, where plain hooks read them,
whichever attention function ComfyUI then uses. In other models an `optimized_attention_override` reads the
queries and keys, then calls the attention function that would have run anyway, with the same arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint, TokenGrid
from ...hookpoints.transformers import family_of
from ...hookpoints.unet import is_unet
from .call_hooks import count_tokens, input_of, network_of

OVERRIDE = "optimized_attention_override"
_JOINT = {
    "Stable Diffusion 3",
    "Flux, Flux.2 and Chroma",
    "Chroma Radiance",
    "Qwen-Image",
    "Lumina 2 and Z-Image",
    "AuraFlow",
}
"""Families whose attention runs over one sequence that contains both prompt tokens and image tokens."""
_PADDED_BEHIND = {"Lumina 2 and Z-Image"}
"""Families that add padding after the prompt's tokens; in all other families, added tokens come first."""
_CROSS = {"Wan"}
"""Transformer families whose blocks have cross-attention to the prompt."""


@dataclass(frozen=True)
class Attention:
    """What is needed to compute how much the image attends to the prompt in one layer."""

    layer: str
    """Name of the layer's hook point."""
    grid: tuple[int, ...]
    """The image's token grid."""
    q: Tensor
    """Queries of the image's tokens (no prompt, no reference images), [rows, heads, T, d]."""
    k: Tensor
    """Keys of all tokens, prompt included, [rows, heads, keys, d]."""
    text: tuple[int, int]
    """Range of the prompt's keys: (first, one past the last)."""
    repeats: bool
    """Whether `text` may contain the prompt several times: ComfyUI repeats prompts to make lengths equal."""
    at_end: bool
    """Whether the prompt's tokens come last in `text`, after any tokens that the model adds."""
    mask: Tensor | None
    """The attention mask for the queries `q`, as in scaled dot product attention; None without a mask."""


AttentionCallback = Callable[[Attention], None]


def check_attention(network: nn.Module) -> None:
    """Raise RevelioError for a model whose attention to the prompt cannot be read."""
    family = family_of(network)
    name = family.name if family is not None else type(network).__name__
    if is_unet(network):
        if any(True for _ in _cross_attentions(network)):
            return
    elif name in _JOINT | _CROSS:
        return
    raise RevelioError(
        f"Words cannot be recorded in this model ({name}): its attention to the prompt cannot be read. "
        "Use Stable Diffusion 1 to 3.5, SDXL, Flux, Chroma, Qwen-Image, Lumina 2, Z-Image, AuraFlow "
        "or Wan."
    )


@contextmanager
def attention_hooks(
    base_model: Any, options: Mapping[str, Any], latent_shape: tuple[int, ...], callback: AttentionCallback
) -> Iterator[Mapping[str, Any]]:
    """For one model call, pass each layer's attention to the prompt to `callback`; yield the call's options.

    latent_shape: the shape of the model's input. `options` is not changed: call the model with the yielded
    options. The hooks are removed when the call ends, even if it fails.
    """
    network = network_of(base_model)
    handles: list[RemovableHandle] = []  # grows hook by hook: if one fails, the others can be removed
    try:
        if is_unet(network):
            handles.extend(_projection_hooks(network, callback))
            yield options
        else:
            blocks = _BlockHooks(network, latent_shape, callback)
            handles.extend(blocks.register())
            yield {**options, OVERRIDE: blocks.around(options.get(OVERRIDE))}
    finally:
        for handle in handles:
            handle.remove()


def _cross_attentions(network: nn.Module) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield (layer name, the layer's module, cross-attention module) for each cross-attention of a UNet."""
    for point in hookpoints.list(network):
        module = hookpoints.module_of(network, point)
        for block in getattr(module, "transformer_blocks", ()):
            attention = getattr(block, "attn2", None)
            if attention is not None and hasattr(attention, "to_q") and hasattr(attention, "to_k"):
                yield point.name, module, attention


def _projection_hooks(network: nn.Module, callback: AttentionCallback) -> Iterator[RemovableHandle]:
    """Hook a UNet's transformers (for the map size) and query and key projections; yield the handles."""
    grids: dict[str, _Grid] = {}
    for layer, module, attention in _cross_attentions(network):
        if layer not in grids:  # one transformer has up to ten cross attentions
            grids[layer] = _Grid()
            around = torch.compiler.disable(grids[layer].note)
            yield module.register_forward_pre_hook(around, with_kwargs=True)
        projections = _Projections(layer, attention.heads, grids[layer], callback)
        yield attention.to_q.register_forward_hook(torch.compiler.disable(projections.after_query))
        yield attention.to_k.register_forward_hook(torch.compiler.disable(projections.after_key))


class _Grid:
    """The size of the map that a UNet's transformer receives in this model call."""

    def __init__(self) -> None:
        self.size: tuple[int, ...] = ()

    def note(self, _module: nn.Module, args: tuple[Any, ...], _kwargs: Any) -> None:
        """Store the map's size; called before the transformer runs."""
        self.size = tuple(args[0].shape[2:])


class _Projections:
    """One cross-attention of a UNet during one model call. It keeps the queries until the keys are ready."""

    def __init__(self, layer: str, heads: int, grid: _Grid, callback: AttentionCallback) -> None:
        self._layer = layer
        self._heads = heads
        self._grid = grid
        self._callback = callback
        self._queries: Tensor | None = None

    def after_query(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        """Keep the queries [B, T, heads * d]; called after the query projection runs."""
        self._queries = output

    def after_key(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        """Pass queries and keys to the callback; called after the key projection runs."""
        queries, self._queries = self._queries, None
        if queries is None:
            return
        q, k = _by_head(queries, self._heads), _by_head(output, self._heads)
        if q.shape[2] == math.prod(self._grid.size):  # differs if another pack merges patches
            keys = (0, k.shape[2])
            self._callback(Attention(self._layer, self._grid.size, q, k, keys, True, False, None))


class _BlockHooks:
    """Hooks for one model call that track which transformer block is running, to read its attention."""

    def __init__(
        self, network: nn.Module, latent_shape: tuple[int, ...], callback: AttentionCallback
    ) -> None:
        self._network = network
        self._latent_shape = latent_shape
        self._callback = callback
        self._family = family.name if (family := family_of(network)) is not None else ""
        points = hookpoints.list(network)
        self._points = [point for point in points if point.stream == "image"]
        self._texts = {point.module_path: point for point in points if point.stream == "text"}
        # lists of blocks with a separate prompt stream; in their attention, the prompt precedes the image
        self._separate = {
            _list_of(point) for point in points if point.stream == "text" and self._is_separate(point)
        }
        self._token_counts: dict[str, int] = {}
        self._running: tuple[HookPoint, int] | None = None
        """The block that is running, and the number of tokens in its image stream."""

    def register(self) -> Iterator[RemovableHandle]:
        """Register the hooks one by one and yield the handle of each."""
        points = (*self._points, *self._texts.values())
        paths = dict.fromkeys(path for point in points for path in point.layout.counted_modules)
        yield from count_tokens(self._network, list(paths), self._token_counts)
        for point in self._points:
            module = hookpoints.module_of(self._network, point)
            if self._family in _CROSS:
                module = getattr(module, "cross_attn", module)
            before, after = torch.compiler.disable(self._before(point)), torch.compiler.disable(self._after)
            yield module.register_forward_pre_hook(before, with_kwargs=True)
            yield module.register_forward_hook(after)

    def around(self, inner: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return an override that reads the attention, then runs `inner` (None: ComfyUI's function)."""
        show = torch.compiler.disable(self._show)

        def attend(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self._running is not None:
                show(self._running, *args, **kwargs)
            return function(*args, **kwargs) if inner is None else inner(function, *args, **kwargs)

        return attend

    def _before(self, point: HookPoint) -> Callable[..., None]:
        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            own = input_of(point, args, kwargs)
            self._running = None if own is None else (point, own.shape[1])

        return enter

    def _after(self, *_: Any) -> None:
        self._running = None

    def _show(
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
        """Pass the running block's attention to the callback; parameters as in `optimized_attention`."""
        if not skip_reshape:
            q, k = _by_head(q, heads), _by_head(k, heads)
        found = self._locate(*running, q.shape[2], k.shape[2])
        if found is None:
            return
        text, grid = found
        own = grid.tokens(q.transpose(1, 2).flatten(2)).unflatten(2, (q.shape[1], -1)).transpose(1, 2)
        if mask is not None and mask.ndim > 1 and mask.shape[-2] not in (1, own.shape[2]):
            rows = grid.tokens(mask.reshape(-1, *mask.shape[-2:]))
            mask = rows.reshape(*mask.shape[:-2], *rows.shape[-2:])
        at_end = self._family not in _PADDED_BEHIND | _CROSS
        self._callback(Attention(running[0].name, grid.grid, own, k, text, False, at_end, mask))

    def _locate(
        self, point: HookPoint, stream: int, queries: int, keys: int
    ) -> tuple[tuple[int, int], TokenGrid] | None:
        """Return (range of the prompt's keys, the image's queries), or None if they cannot be located.

        stream: the number of tokens in the block's image stream. queries, keys: their numbers.
        """
        if self._family in _CROSS:
            grid = self._grid_in(point, queries)
            return None if grid is None else ((0, keys), grid)
        if queries != keys:
            return None
        if _list_of(point) in self._separate:
            ahead, grid = keys - stream, self._grid_in(point, stream)
            if ahead <= 0 or grid is None:  # no prompt: the image attends only to itself
                return None
            return (0, ahead), replace(grid, start=grid.start + ahead)
        text_point = self._texts.get(point.module_path)
        grid = self._grid_in(point, queries)
        text = None if text_point is None else self._grid_in(text_point, queries)
        if grid is None or text is None:
            return None
        return (text.start, text.start + text.grid[-1]), grid

    def _is_separate(self, text: HookPoint) -> bool:
        return any(
            point.module_path == text.module_path and point.element != text.element for point in self._points
        )

    def _grid_in(self, point: HookPoint, tokens: int) -> TokenGrid | None:
        """Locate the hook point's tokens in a sequence of `tokens` tokens; None if they do not fit."""
        sequence = torch.empty(1, tokens, 1, device="meta")
        found = hookpoints.locate_tokens(sequence, point.layout, self._latent_shape, self._token_counts)
        one_row = point.stream == "image" and found.grid == (1, tokens) and tokens > 1
        tall = len(self._latent_shape) > 2 and self._latent_shape[-2] > 1
        return None if one_row and tall else found


def _list_of(point: HookPoint) -> str:
    return point.module_path.rpartition(".")[0]


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Split the heads: [B, T, heads * d] -> [B, heads, T, d]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
