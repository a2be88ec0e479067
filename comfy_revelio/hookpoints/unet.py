"""Hook points of the UNet family (SD 1.x, SD 2.x, SDXL and its relatives, Revelio Mini).

Modules are recognised by their parts, not by class. A UNet has the containers input_blocks, middle_block and
output_blocks. A leaf with transformer_blocks is an attention block; a leaf with in_layers and out_layers is a
residual block. Only leaves are hook points: the model loops over the containers and never calls them, so
a forward hook on a container would never fire.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .point import Captured, HookPoint

if TYPE_CHECKING:
    from torch.nn import Module

_Leaf = tuple[str, "Module"]  # module path, module
_DIFFUSERS = {"attention": "attentions", "residual": "resnets", "downsampler": "downsamplers",
              "upsampler": "upsamplers"}  # fmt: skip


def list_points(diffusion_model: Module) -> list[HookPoint]:
    """List all hook points of a UNet in the order in which the model computes them.

    Some distilled UNets (SSD-1B, KOALA) have a middle block without attention, or no middle block.
    """
    points: list[HookPoint] = []
    for side, level, leaves in _stages(diffusion_model):
        points += _stage_points(side, level, leaves)
    return points


def is_unet(diffusion_model: Module) -> bool:
    """Whether the model has the parts of a UNet."""
    return all(hasattr(diffusion_model, part) for part in ("input_blocks", "middle_block", "output_blocks"))


def width_of(module: Module) -> int:
    """Return the number of channels of a module's output, or 0 if the number is unknown."""
    names = ("in_channels",) if hasattr(module, "transformer_blocks") else ("out_channels", "channels")
    for name in (*names, "out_features", "embed_dim"):
        if isinstance(width := getattr(module, name, None), int):
            return width
    return 0


def _stages(model: Module) -> Iterator[tuple[str, int, list[_Leaf]]]:
    """Yield (side, level, leaves) for all levels of the down path, for the middle, and for the up path."""
    down, middle, up = (
        list(getattr(model, part) or ()) for part in ("input_blocks", "middle_block", "output_blocks")
    )
    yield from _levels("down", "input_blocks", down[1:], first=1)  # the first block only projects the latents
    yield "mid", 0, [(f"middle_block.{i}", leaf) for i, leaf in enumerate(middle)]
    yield from _levels("up", "output_blocks", up, first=0)


def _levels(side: str, part: str, blocks: list[Module], first: int) -> Iterator[tuple[str, int, list[_Leaf]]]:
    """Group blocks into levels: a level ends where the resolution changes."""
    level, leaves = 0, list[_Leaf]()
    for number, block in enumerate(blocks, start=first):
        children = [(f"{part}.{number}.{name}", leaf) for name, leaf in block.named_children()]
        leaves += children
        if any(_kind(leaf) in ("downsampler", "upsampler") for _, leaf in children):
            yield side, level, leaves
            level, leaves = level + 1, []
    if leaves:
        yield side, level, leaves


def _stage_points(side: str, level: int, leaves: list[_Leaf]) -> list[HookPoint]:
    block = "mid_block" if side == "mid" else f"{side}_blocks.{level}"
    part = "middle" if side == "mid" else f"{side} {level}"
    counts: dict[str, int] = {}
    points = []
    for position, (path, leaf) in enumerate(leaves):
        kind = _kind(leaf)
        if not kind:
            continue
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        aliases = [f"{block}.{_DIFFUSERS[kind]}.{number}"]
        if position == len(leaves) - 1:
            aliases.append(block)  # the output of the last leaf is the output of the block
        sampler = kind in ("downsampler", "upsampler")
        title = f"{part} - {kind}" if sampler else f"{part} - {kind} {number}"
        alike = kind == "attention" or getattr(leaf, "channels", 0) == getattr(leaf, "out_channels", None)
        captured: tuple[Captured, ...] = ("output", "diff") if alike and not sampler else ("output",)
        points.append(HookPoint(path, title, tuple(aliases), width_of(leaf), "unet", captured=captured))
    return points


def _kind(leaf: Module) -> str:
    if hasattr(leaf, "transformer_blocks"):
        return "attention"
    if getattr(leaf, "updown", False) is True:
        return "upsampler" if "up" in type(getattr(leaf, "h_upd", leaf)).__name__.lower() else "downsampler"
    if hasattr(leaf, "in_layers") and hasattr(leaf, "out_layers"):
        return "residual"
    name = type(leaf).__name__.lower()
    return next((kind for kind in ("downsampler", "upsampler") if kind[:-1] in name), "")
