"""Hook points of the transformer families: the outputs of their blocks.

A model's family is recognised by the names of the model's parts, not by the class. A family's description
states what a block returns, through which input each stream of tokens enters a block, and where the image and
prompt tokens are. Modules inside a block are found by their path.
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

_Counts = tuple[Count, Count]  # the first count minus the second; see TokenLayout
_START: _Counts = ("", "")
_END: _Counts = ("all", "")


@dataclass(frozen=True)
class Stream:
    """A stream of tokens through a list of blocks. TokenLayout explains begin, end, beside and either_end."""

    kind: StreamKind
    element: int = 0
    """Index of the stream in the tuple that a block returns; 0 if a block returns one tensor."""
    input: tuple[str, int] = ("", 0)
    """Keyword and position of the input through which the stream enters a block."""
    begin: _Counts = _START
    end: _Counts = _END
    beside: Count = ""
    either_end: bool = False


@dataclass(frozen=True)
class Blocks:
    """A list of blocks of one model family."""

    path: str
    title: str
    """Name shown to people, such as "double block"."""
    alias: str
    """Name of the list in diffusers; "" if diffusers uses `path` too or has no such list."""
    streams: tuple[Stream, ...]
    inside: tuple[tuple[str, str], ...] = ()
    """Pairs (name in diffusers, path in ComfyUI) for parts of a block that papers refer to."""


@dataclass(frozen=True)
class Family:
    """A family of diffusion models, recognised by their parts: a model of the family has all of `parts`."""

    name: str
    parts: tuple[str, ...]
    blocks: tuple[Blocks, ...]


def _flux(embedder: str) -> tuple[Blocks, ...]:
    """Describe Flux: blocks with two streams, then blocks with one sequence (text, `embedder`'s output)."""
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
    """Describe blocks with two streams. image: index of the image stream; inputs: keywords, image first."""
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
    """Describe blocks with text and image in one sequence. begin: of the image; text: its begin and end."""
    streams = (
        Stream("image", begin=begin, beside=beside, either_end=either_end),
        Stream("text", begin=text[0], end=text[1], either_end=either_end),
    )
    return Blocks(path, title, alias, streams)


def _alone(
    path: str, alias: str = "", begin: _Counts = _START, title: str = "block", kind: StreamKind = "image"
) -> Blocks:
    """Describe blocks with a single stream; most of them receive the prompt through cross-attention."""
    return Blocks(path, title, alias, (Stream(kind, begin=begin),))


_FLUX_INSIDE = (("ff", "img_mlp"), ("ff_context", "txt_mlp"))
_SD3_INSIDE = (("ff", "x_block.mlp"), ("ff_context", "context_block.mlp"))
_FLUX_PARTS = ("double_blocks", "single_blocks", "txt_in")

# A model that has the parts of several families belongs to the first of these families.
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
            # order: reference image, image or video, text (newer versions of ComfyUI: text first)
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
            # reference images come first; text and image both have padding at their end
            _alone("noise_refiner", begin=("all", "padded"), title="image refiner"),
            _joint("layers", "", ("all", "padded"), (_START, ("context_refiner.0", "")), title="block"),
        ),
    ),
    Family(
        "AuraFlow",
        ("double_layers", "single_layers", "cond_seq_linear", "register_tokens"),
        (
            _double("double_layers", "joint_transformer_blocks", 1, ("", "")),
            # order: registers, text, image
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
            # when editing, the original image is to the right of the new one
            _double("double_stream_blocks", "", 0, ("image_tokens", "text_tokens"), beside="x_embedder"),
            _joint("single_stream_blocks", "", _START, (("x_embedder", ""), _END), beside="x_embedder"),
        ),
    ),
    Family(
        "Wan, SCAIL",
        ("blocks", "patch_embedding", "patch_embedding_pose", "head"),
        # reference frames come first, pose tokens last
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
    """Return the family of a diffusion model, or None if the family is unknown."""
    return next(
        (family for family in FAMILIES if all(_part(model, part) is not None for part in family.parts)), None
    )


def list_points(model: Module, family: Family) -> list[HookPoint]:
    """List the hook points of all blocks in the order of computation; a block's image stream comes first."""
    return [
        point
        for blocks in family.blocks
        for number, block in enumerate(getattr(model, blocks.path))
        for stream in blocks.streams
        if not (stream.kind == "text" and _drops_text(block))
        for point in [_point(model, blocks, number, stream)]
    ]


def list_unknown(model: Module) -> list[HookPoint]:
    """List an unknown model's hook points: the items of outermost ModuleLists whose items have one class."""
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
    """Return a layout for modules that no family describes: image tokens only, if their number fits."""
    return TokenLayout(patch=_patch(model), exact=True)


def model_width(model: Module) -> int:
    """Return the width of a transformer's tokens, or 0 if the width is unknown."""
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
    """Whether the block returns None as text, as SD 3's last block does (no later block needs text)."""
    return bool(getattr(getattr(block, "context_block", None), "pre_only", False))


def _part(model: Module, path: str) -> object | None:
    found: object | None = model
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _patch(model: Module) -> tuple[int, int, int]:
    """Return the size of a token's patch in latent cells: (frames, height, width)."""
    size = getattr(model, "patch_size", 1)
    sides = (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    return (1, *sides) if len(sides) == 2 else (sides[0], sides[1], sides[2])


def _multiple(model: Module) -> int:
    """Return the number to a multiple of which the model (Z-Image) pads its sequences; 1 for no padding."""
    multiple = getattr(model, "pad_tokens_multiple", None)
    return multiple if isinstance(multiple, int) and multiple > 0 else 1
