"""Hook points of the transformer families: the outputs of their blocks.

A family is recognised by the names of its parts, not by its class, and described by its lists of blocks: what
a block returns, which of its inputs each stream of tokens continues, and where the image's and the prompt's
tokens are. Modules inside a block are found by their path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .point import HookPoint
from .token_layout import Count, TokenLayout
from .token_layout import Stream as StreamKind
from .unet import width_of

if TYPE_CHECKING:
    from torch.nn import Module

_Counts = tuple[Count, Count]  # one count minus another; see TokenLayout
_START: _Counts = ("", "")
_END: _Counts = ("all", "")


@dataclass(frozen=True)
class Stream:
    """One stream of tokens through a list of blocks; begin, end, beside and either_end as in TokenLayout."""

    kind: StreamKind
    element: int = 0
    """Its position in the tuple that a block returns; 0 where a block returns one tensor."""
    input: tuple[str, int] = ("", 0)
    """Keyword and position of the block's input that it continues."""
    begin: _Counts = _START
    end: _Counts = _END
    beside: Count = ""
    either_end: bool = False


@dataclass(frozen=True)
class Blocks:
    """A list of blocks of one model family."""

    path: str
    title: str
    """For people, such as "double block"."""
    alias: str
    """diffusers' name of the list, where that differs."""
    streams: tuple[Stream, ...]
    inside: tuple[tuple[str, str], ...] = ()
    """Parts of a block that papers name: diffusers' name -> the path inside the block here."""


@dataclass(frozen=True)
class Family:
    """A kind of model that has all these parts."""

    name: str
    parts: tuple[str, ...]
    blocks: tuple[Blocks, ...]


def _flux(embedder: str) -> tuple[Blocks, ...]:
    """Two streams, then one sequence: text, the image, reference images (all through `embedder`)."""
    image = ("all", embedder)
    return (
        _double("double_blocks", "transformer_blocks", 0, ("img", "txt"), inside=_FLUX_INSIDE),
        _joint("single_blocks", "single_transformer_blocks", image, (_START, image)),
    )


def _double(
    path: str,
    alias: str,
    image: int,
    inputs: tuple[str, str],
    begin: _Counts = _START,
    beside: Count = "",
    inside: tuple[tuple[str, str], ...] = (),
) -> Blocks:
    """Blocks that take and return both streams. image: its position; inputs: keywords, image first."""
    streams = (
        Stream("image", image, (inputs[0], image), begin, beside=beside),
        Stream("text", 1 - image, (inputs[1], 1 - image)),
    )
    return Blocks(path, "double block", alias, streams, inside)


def _joint(
    path: str,
    alias: str,
    begin: _Counts,
    text: tuple[_Counts, _Counts],
    beside: Count = "",
    title: str = "single block",
    either_end: bool = False,
) -> Blocks:
    """Blocks with one sequence of both streams. begin: of the image; text: where it begins and ends."""
    streams = (
        Stream("image", begin=begin, beside=beside, either_end=either_end),
        Stream("text", begin=text[0], end=text[1], either_end=either_end),
    )
    return Blocks(path, title, alias, streams)


def _alone(
    path: str, alias: str = "", begin: _Counts = _START, title: str = "block", kind: StreamKind = "image"
) -> Blocks:
    """Blocks with one stream; the prompt comes in by cross-attention."""
    return Blocks(path, title, alias, (Stream(kind, begin=begin),))


_FLUX_INSIDE = (("ff", "img_mlp"), ("ff_context", "txt_mlp"))
_SD3_INSIDE = (("ff", "x_block.mlp"), ("ff_context", "context_block.mlp"))
_FLUX_PARTS = ("double_blocks", "single_blocks", "txt_in")

# The first family whose parts the model has is the model's.
FAMILIES = (
    Family(
        "Stable Diffusion 3",
        ("joint_blocks", "x_embedder", "context_embedder"),
        (_double("joint_blocks", "transformer_blocks", 1, ("", ""), inside=_SD3_INSIDE),),
    ),
    Family(
        "HunyuanVideo",
        (*_FLUX_PARTS, "img_in", "txt_in.individual_token_refiner"),
        (
            # a reference image, the image or video, then text; newer versions of ComfyUI put text first
            _double("double_blocks", "transformer_blocks", 0, ("img", "txt"), ("all", "image")),
            _joint(
                "single_blocks",
                "single_transformer_blocks",
                ("double_blocks.0", "image"),
                (("double_blocks.0", ""), _END),
                either_end=True,
            ),
        ),
    ),
    Family("Chroma Radiance", (*_FLUX_PARTS, "img_in_patch"), _flux("img_in_patch")),
    Family("Flux, Flux.2 and Chroma", (*_FLUX_PARTS, "img_in"), _flux("img_in")),
    Family(
        "Qwen-Image",
        ("transformer_blocks", "txt_norm", "img_in", "txt_in"),
        (_double("transformer_blocks", "", 1, ("hidden_states", "encoder_hidden_states")),),
    ),
    Family(
        "Lumina 2 and Z-Image",
        ("layers", "noise_refiner", "context_refiner", "cap_embedder"),
        (
            _alone("context_refiner", title="text refiner", kind="text"),
            # reference images come first; text and image are each padded at their end
            _alone("noise_refiner", begin=("all", "padded"), title="image refiner"),
            _joint("layers", "", ("all", "padded"), (_START, ("context_refiner.0", "")), title="block"),
        ),
    ),
    Family(
        "AuraFlow",
        ("double_layers", "single_layers", "cond_seq_linear", "register_tokens"),
        (
            _double("double_layers", "joint_transformer_blocks", 1, ("", "")),
            # registers and text, then the image
            _joint(
                "single_layers", "single_transformer_blocks", ("all", "image"), (_START, ("all", "image"))
            ),
        ),
    ),
    Family("PixArt", ("blocks", "y_embedder", "t_block"), (_alone("blocks", "transformer_blocks"),)),
    Family("HunyuanDiT", ("blocks", "mlp_t5", "pooler"), (_alone("blocks"),)),
    Family(
        "HiDream",
        ("double_stream_blocks", "single_stream_blocks", "caption_projection"),
        (
            # an image to edit is to the right of the image
            _double("double_stream_blocks", "", 0, ("image_tokens", "text_tokens"), beside="x_embedder"),
            _joint("single_stream_blocks", "", _START, (("x_embedder", ""), _END), beside="x_embedder"),
        ),
    ),
    Family(
        "Wan, SCAIL",
        ("blocks", "patch_embedding", "patch_embedding_pose", "head"),
        # reference frames come first, tokens of the pose last
        (_alone("blocks", begin=("patch_embedding", "image")),),
    ),
    Family(
        "Wan",
        ("blocks", "patch_embedding", "text_embedding", "head"),
        # a reference image comes first, further frames and images last
        (_alone("blocks", begin=("ref_conv", "")),),
    ),
)


def family_of(model: Module) -> Family | None:
    """The family of a diffusion model, or None for any other model."""
    return next(
        (family for family in FAMILIES if all(_part(model, part) is not None for part in family.parts)), None
    )


def list_points(model: Module, family: Family) -> list[HookPoint]:
    """All blocks of the model, in the order in which they are computed, the image's stream first."""
    return [
        point
        for blocks in family.blocks
        for number, block in enumerate(getattr(model, blocks.path))
        for stream in blocks.streams
        if not (stream.kind == "text" and _drops_text(block))
        for point in [_point(model, blocks, number, stream)]
    ]


def list_unknown(model: Module) -> list[HookPoint]:
    """The blocks of a model of unknown family: the items of its outermost lists of modules of one class."""
    from torch.nn import ModuleList

    points: list[HookPoint] = []
    lists: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, ModuleList) or any(path.startswith(f"{outer}.") for outer in lists):
            continue
        lists.append(path)
        if len({type(block) for block in module}) == 1:
            points += [
                HookPoint(
                    f"{path}.{number}", f"{path} {number}", (), model_width(model), "", layout=guessed(model)
                )
                for number in range(len(module))
            ]
    return points


def guessed(model: Module) -> TokenLayout:
    """The layout of a module that no family describes: the image's tokens if there are as many."""
    return TokenLayout(patch=_patch(model), exact=True)


def model_width(model: Module) -> int:
    """Width of a transformer's tokens; 0 where it does not say."""
    for name in ("hidden_size", "inner_dim", "dim", "model_channels"):
        if isinstance(width := getattr(model, name, None), int):
            return width
    embedder = getattr(model, "init_x_linear", None)
    return 0 if embedder is None else width_of(embedder)


def _point(model: Module, blocks: Blocks, number: int, stream: Stream) -> HookPoint:
    path = f"{blocks.path}.{number}"
    both = len(blocks.streams) > 1
    suffix = ".txt" if stream.kind == "text" and both else ""
    return HookPoint(
        name=path + suffix,
        title=f"{blocks.title} {number}" + (f", {stream.kind}" if both else ""),
        aliases=(f"{blocks.alias}.{number}{suffix}",) if blocks.alias else (),
        width=model_width(model),
        stage="transformer",
        stream=stream.kind,
        layout=TokenLayout(
            stream=stream.kind,
            patch=_patch(model),
            begin=stream.begin,
            end=stream.end,
            multiple=_multiple(model),
            beside=stream.beside,
            either_end=stream.either_end,
        ),
        path=path,
        element=stream.element,
        input=stream.input,
    )


def _drops_text(block: Module) -> bool:
    """The last block of SD 3 does not need text any more and returns None for it."""
    return bool(getattr(getattr(block, "context_block", None), "pre_only", False))


def _part(model: Module, path: str) -> object | None:
    found: object | None = model
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _patch(model: Module) -> tuple[int, int, int]:
    """Latent cells of a token along frames, height and width."""
    size = getattr(model, "patch_size", 1)
    sides = (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    return (1, *sides) if len(sides) == 2 else (sides[0], sides[1], sides[2])


def _multiple(model: Module) -> int:
    """Z-Image pads its sequences up to a multiple."""
    multiple = getattr(model, "pad_tokens_multiple", None)
    return multiple if isinstance(multiple, int) and multiple > 0 else 1
