"""How tokens are arranged in an activation.

Activations are maps [B, C, H, W], videos [B, C, F, H, W] or sequences [B, T, C]: B batch, C channels, F
frames, H height, W width, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import RevelioError

if TYPE_CHECKING:
    from torch import Tensor

Stream = Literal["image", "text"]

Count = str
"""Name of a number of tokens: a module's path (the tokens that the module returned), "all" (the sequence),
"image" (the image tokens made from the latents), "padded" (image tokens and their padding), or "" (zero)."""


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of one stream (image or text) are in a sequence, and how they are arranged."""

    stream: Stream = "image"
    """"image" tokens are in the order of the latents: by frame, row, column. "text" tokens form one row."""
    patch: tuple[int, int, int] = (1, 1, 1)
    """Latent cells in a token's patch: (frames, height, width). Latents are padded to whole patches."""
    begin: tuple[Count, Count] = ("", "")
    """Index of the first token: first count - second count. Text, registers, reference images may precede."""
    end: tuple[Count, Count] = ("all", "")
    """Index after the last text token, a difference like `begin`. Image tokens end with their grid."""
    multiple: int = 1
    """The count "padded" is the count "image" rounded up to a multiple of this number."""
    beside: Count = ""
    """Path of the module that embeds image and reference image side by side, so that each row of the sequence
    is longer than a row of the image; "" if there is no such module."""
    exact: bool = False
    """Whether image tokens are located only if they end where the sequence ends."""
    either_end: bool = False
    """Whether text may also come first, although `begin` and `end` assume that text comes last. If
    `locate_tokens` gets "ahead" = n in `seen`, n text tokens come first and the image begins n later."""

    @property
    def counted_modules(self) -> tuple[str, ...]:
        """Paths of the modules whose numbers of tokens are needed to locate this layout's tokens."""
        return tuple(
            dict.fromkeys(
                count
                for count in (*self.begin, *self.end, self.beside)
                if count not in ("", "all", "image", "padded")
            )
        )


@dataclass(frozen=True)
class TokenGrid:
    """The position and grid of the tokens in one activation, as found by `locate_tokens`."""

    grid: tuple[int, ...]
    """(height, width), or (frames, height, width) if there is more than one frame."""
    start: int = 0
    """Index of the first token in the sequence."""
    pitch: int = 0
    """Number of tokens from the start of one row to the start of the next; 0 means the grid's width."""

    def view(self, activation: Tensor) -> Tensor:
        """Return the tokens as a view [B, ..., width, C] of the activation, for reading and writing."""
        if activation.ndim > 3:
            return activation.movedim(1, -1)
        rows, width = math.prod(self.grid[:-1]), self.grid[-1]
        pitch = self.pitch or width
        section = activation[:, self.start : self.start + rows * pitch]
        return section.unflatten(1, (rows, pitch))[:, :, :width]

    def tokens(self, activation: Tensor) -> Tensor:
        """Return the tokens [B, T, C], where T is the product of the grid; a view wherever possible."""
        view = self.view(activation)
        return view.reshape(view.shape[0], -1, view.shape[-1])

    def add(self, activation: Tensor, change: Tensor) -> None:
        """Add `change` [B or 1, T, C] in place to those tokens of the activation that are on this grid."""
        view = self.view(activation)
        view += change.to(activation).expand(len(view), -1, -1).reshape(view.shape)


def locate_tokens(
    activation: Tensor,
    layout: TokenLayout,
    latent: Sequence[int] | None = None,
    seen: Mapping[str, int] | None = None,
    map_size: Sequence[int] = (),
) -> TokenGrid:
    """Find the tokens that `layout` describes in an activation.

    latent: shape of the model's input, [B, C, H, W] or [B, C, F, H, W], if known.
    seen: for each of the layout's `counted_modules`, the number of tokens that it returned in this call (0 if
    it did not run). If known, "ahead" is the number of text tokens before the image.
    map_size: (height, width) of the map from which a sequence was made, if known.

    A sequence of image tokens that does not fit the latents' grid is treated as one row.

    >>> import torch
    >>> locate_tokens(torch.zeros(1, 6, 8), TokenLayout(), latent=(1, 4, 2, 3)).grid
    (2, 3)
    """
    if activation.ndim in (4, 5):
        return TokenGrid(_without_single_frame(tuple(activation.shape[2:])))
    if activation.ndim != 3:
        raise RevelioError(
            f"Activations of shape {list(activation.shape)} are neither a map [B, C, H, W] nor tokens "
            "[B, T, C]; choose another hook point."
        )
    total = activation.shape[1]
    if map_size and math.prod(map_size) == total:
        return TokenGrid(tuple(map_size))
    found = _on_latents(layout, total, latent, seen or {})
    return found or TokenGrid((1, total))


def token_count(output: object) -> int:
    """Count the tokens in a module's output: a sequence, map or video, or a tuple with one of these first."""
    first = output[0] if isinstance(output, tuple | list) else output
    shape: tuple[int, ...] = getattr(first, "shape", ())
    if len(shape) == 3:
        return shape[1]
    return math.prod(shape[2:]) if len(shape) > 3 else 0


def _on_latents(
    layout: TokenLayout, total: int, latent: Sequence[int] | None, seen: Mapping[str, int]
) -> TokenGrid | None:
    grid = None if latent is None else _latent_grid(latent, layout.patch)
    image = 0 if grid is None else math.prod(grid)
    counts = {
        **seen,
        "": 0,
        "all": total,
        "image": image,
        "padded": -(-image // layout.multiple) * layout.multiple,
    }
    begin, end = (counts.get(plus, 0) - counts.get(minus, 0) for plus, minus in (layout.begin, layout.end))
    if layout.either_end and (ahead := counts.get("ahead", 0)):
        begin, end = (0, ahead) if layout.stream == "text" else (begin + ahead, end)
    if layout.stream == "text":
        return TokenGrid((1, end - begin), begin) if 0 <= begin < end <= total else None
    if grid is None:
        return None
    rows = math.prod(grid[:-1])
    pitch = max(grid[-1], counts.get(layout.beside, 0) // rows)
    end = begin + rows * pitch
    if begin < 0 or end > total or (layout.exact and end != total):
        return None
    return TokenGrid(_without_single_frame(grid), begin, pitch)


def _latent_grid(latent: Sequence[int], patch: tuple[int, int, int]) -> tuple[int, ...] | None:
    """Return the numbers of patches along (frames,) height and width; None unless `latent` is 4D or 5D."""
    if len(latent) not in (4, 5):
        return None
    sides = latent[2:]
    return tuple(-(-side // size) for side, size in zip(sides, patch[-len(sides) :], strict=True))


def _without_single_frame(grid: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid without the dimension of frames if there is only one frame."""
    return grid[1:] if len(grid) == 3 and grid[0] == 1 else grid
