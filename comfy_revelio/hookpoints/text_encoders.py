"""Hook points of text encoders: the output of each layer.

CLIP, T5, BERT and the language models name their layers differently. A text model may be the transformer
itself, a wrapper that has the transformer in `transformer` or `text_model`, or ComfyUI's outer model, whose
attribute `clip` is the name of the attribute that contains the inner model.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import RevelioError
from .point import HookPoint

if TYPE_CHECKING:
    from torch.nn import Module

_LISTS = ("layers", "block", "layer")  # CLIP and language models, T5, BERT
_WRAPPERS = ("encoder", "text_model", "model", "bert", "transformer")
_PATH = re.compile(
    r"(?:(?:cond_stage_model|transformer|text_encoder(?:_\d)?|text_model|encoder|(?:language_)?model|bert"
    r"|(?P<encoder>(?:clip|hydit|pile|byt5|u?m?t5|llama|mistral|qwen|gemma)\w*))\.)*"
    r"(?:layers|resblocks|block|layer)\.(?P<number>\d+)"
)
_TWO_OF_SDXL = re.compile(r"(?:text_encoder\.)?text_model\.encoder\.layers\.(\d+)\.(\d+)")
_DIFFUSERS = {
    "layers": ("text_encoder.text_model.encoder.{}", "text_model.encoder.{}", "encoder.{}", "model.{}"),
    "block": ("text_encoder.encoder.{}", "encoder.{}"),
    "layer": ("bert.encoder.{}", "encoder.{}"),
}


def list_points(text_model: Module) -> list[HookPoint]:
    """List the hook points of a text model, from the first layer to the last."""
    kind, layers = _layers(text_model)
    points = []
    for number, layer in enumerate(layers):
        name = f"{kind}.{number}"
        aliases = tuple(alias.format(name) for alias in _DIFFUSERS[kind])
        points.append(HookPoint(name, f"text layer {number}", aliases, _width(layer), "text", "text"))
    return points


def layers_of(text_model: Module) -> list[Module]:
    """Return the layers of a text model; the model may be inside the usual wrappers."""
    return _layers(text_model)[1]


def layer_number(name: str) -> int | None:
    """Return the layer number in the path of a text layer, or None if `name` is not such a path.

    >>> layer_number("text_encoder.text_model.encoder.layers.9")
    9
    """
    match = _PATH.fullmatch(name)
    return int(match["number"]) if match else None


def encoder_named(name: str) -> str:
    """Return the text encoder in a layer's path ("clip_g", "t5xxl", "qwen3_4b"), or "" if there is none.

    >>> encoder_named("t5xxl.block.12")
    't5xxl'
    """
    match = _PATH.fullmatch(name)
    return (match["encoder"] or "") if match else ""


def parts_of(name: str) -> list[str]:
    """Split a name into the names of its layers. The hidden states of several layers ("a + b") are joined.

    Concept Steerers use one path with two numbers for two layers, one in each of SDXL's encoders:

    >>> parts_of("text_encoder.text_model.encoder.layers.10.28")
    ['clip_l.layers.10', 'clip_g.layers.28']
    """
    if match := _TWO_OF_SDXL.fullmatch(name.strip()):
        return [f"clip_l.layers.{match[1]}", f"clip_g.layers.{match[2]}"]
    return [part.strip() for part in name.split("+")]


def is_layer(name: str) -> bool:
    """Whether the name is that of a text layer or of several joined text layers."""
    return all(layer_number(part) is not None for part in parts_of(name))


def _layers(text_model: Module) -> tuple[str, list[Module]]:
    module: Module | None = text_model
    for _ in range(8):  # more levels than any model has; a limit, in case a model contains itself
        if module is None:
            break
        for kind in _LISTS:
            found = getattr(module, kind, None)
            if type(found).__name__ == "ModuleList":
                return kind, list(found)  # type: ignore[arg-type]
        named = getattr(module, str(getattr(module, "clip", "")), None)
        module = named or next((getattr(module, part) for part in _WRAPPERS if hasattr(module, part)), None)
    raise RevelioError(
        f"{type(text_model).__name__} is not a supported text encoder, because it has no known layers; "
        "use the CLIP of an image model."
    )


def _width(layer: Module) -> int:
    """Return the width of the hidden states: that of the widest norm, ignoring norms of queries and keys."""
    widths = [
        len(value)
        for name, value in layer.named_parameters()
        if "norm" in name.lower() and value.ndim == 1 and not re.search(r"[qk]_norm", name)
    ]
    return max(widths, default=0)
