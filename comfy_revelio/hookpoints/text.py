"""Hook points of CLIP-type text transformers: the output of each layer.

The text model may be handed over at any depth: the transformer, a wrapper that holds it as
`transformer` or `text_model`, or ComfyUI's outer model that names its inner one in `clip`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import RevelioError
from .point import HookPoint
from .unet import width_of

if TYPE_CHECKING:
    from torch.nn import Module

_WRAPPERS = ("encoder", "text_model", "transformer")
_PATH = re.compile(
    r"(?:(?:cond_stage_model|clip_[lgh]|transformer|text_encoder(?:_\d)?|text_model|encoder)\.)*"
    r"(?:layers|resblocks)\.(\d+)"
)


def list_points(text_model: Module) -> list[HookPoint]:
    """The layers of a CLIP-type text model, first to last; RevelioError for another kind."""
    points = []
    for number, layer in enumerate(layers_of(text_model)):
        aliases = (
            f"text_encoder.text_model.encoder.layers.{number}",
            f"text_model.encoder.layers.{number}",
            f"encoder.layers.{number}",
        )
        title = f"text layer {number}"
        points.append(HookPoint(f"layers.{number}", title, aliases, _layer_width(layer), "text"))
    return points


def layers_of(text_model: Module) -> list[Module]:
    """The layer modules themselves, found through the usual wrappers."""
    module: Module | None = text_model
    for _ in range(8):  # deeper than any wrapper goes; stops a model that refers to itself
        if module is None:
            break
        if hasattr(module, "layers"):
            return list(module.layers)  # type: ignore[arg-type]
        named = getattr(module, str(getattr(module, "clip", "")), None)
        module = named or next((getattr(module, part) for part in _WRAPPERS if hasattr(module, part)), None)
    raise RevelioError(
        f"{type(text_model).__name__} is no CLIP-type text encoder: no layers were found in it; "
        "use the CLIP of an SD 1.x or SD 2.x checkpoint or of Revelio Mini."
    )


def layer_number(name: str) -> int | None:
    """The layer that a path of any of the usual spellings means, or None."""
    match = _PATH.fullmatch(name)
    return int(match[1]) if match else None


def _layer_width(layer: Module) -> int:
    norm = getattr(layer, "layer_norm1", None)
    shape = getattr(norm, "normalized_shape", None)
    return int(shape[-1]) if shape else width_of(layer)
