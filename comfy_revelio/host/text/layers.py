"""Find the text encoder and the layer that a text dictionary reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint
from ...hookpoints.text_encoders import encoder_named, is_layer, parts_of
from ..comfy_types import Clip


@dataclass(frozen=True)
class TextLayer:
    """The layer of a text encoder that a text dictionary reads."""

    encoder: str
    """The encoder's attribute name, such as "clip_l"."""
    hook_point: HookPoint
    """The layer of this encoder."""
    joined: TextLayer | None = None
    """For SAEs of both SDXL encoders: the layer whose hidden states are appended to this layer's."""

    @property
    def parts(self) -> tuple[TextLayer, ...]:
        """This layer, then the layers joined to it, in order."""
        return (self,) if self.joined is None else (self, *self.joined.parts)


def resolve_layer(clip: Clip, name: str, width: int, title: str) -> TextLayer:
    """Return the layer `name` of the text encoder in `clip` in which this layer has width `width`.

    Two layers joined by "+" in `name` are read as one layer, as wide as both together. title: what error
    messages call the SAE. Raises RevelioError if no encoder of this CLIP fits.
    """
    if not is_layer(name.strip()):
        reads = f"reads {name}, which is not" if name.strip() else "does not name"
        raise RevelioError(
            f"{title} {reads} a layer of a text encoder; choose an SAE of a text encoder layer, such as one "
            "for layers.9."
        )
    encoders = encoders_of(clip.cond_stage_model)
    if not encoders:
        raise RevelioError(
            f"{title} reads a text encoder, but this CLIP has no encoder that can be read; connect the CLIP "
            "of the model that the SAE was trained on."
        )
    parts = parts_of(name)
    if len(parts) == 1:
        return _resolve_one(encoders, parts[0], width, title)
    found = [_resolve_one(encoders, part, 0, title) for part in parts]
    total = sum(layer.hook_point.width for layer in found)
    if total != width:
        raise RevelioError(
            f"{title} reads hidden states of width {width}, but {name} of this CLIP has width {total}; "
            "connect the CLIP that the SAE was trained on."
        )
    joined = None
    for layer in reversed(found):
        joined = TextLayer(layer.encoder, layer.hook_point, joined)
    assert joined is not None
    return joined


def _resolve_one(encoders: dict[str, Any], name: str, width: int, title: str) -> TextLayer:
    """Return the layer `name`, in the encoder it mentions or the first with this width (0: any)."""
    named = encoder_named(name)
    if named and named not in encoders:
        raise RevelioError(
            f"{title} reads the text encoder {named}, but this CLIP has {', '.join(encoders)}; connect the "
            "CLIP that the SAE was trained on."
        )
    problem: RevelioError | None = None
    widths: list[int] = []
    for encoder, module in encoders.items():
        if named and encoder != named:
            continue
        try:
            hook_point = hookpoints.resolve_text(module.transformer, name)
        except RevelioError as error:
            problem = error
            continue
        if not width or not hook_point.width or hook_point.width == width:
            return TextLayer(encoder, hook_point)
        widths.append(hook_point.width)
    if not widths and problem is not None:
        raise problem
    raise RevelioError(
        f"{title} reads hidden states of width {width}, but {name} of this CLIP has width "
        f"{' and '.join(str(width) for width in widths)}; connect the CLIP that the SAE was trained on."
    )


def encoders_of(model: Any) -> dict[str, Any]:
    """Return a text model's text encoders by attribute name: clip_l, clip_g, t5xxl, qwen3_4b ..."""
    found: dict[str, Any] = {}
    for name, child in model.named_children():
        transformer = getattr(child, "transformer", None)
        if transformer is None:
            continue
        try:
            hookpoints.list_text(transformer)
        except RevelioError:
            continue
        found[name] = child
    return found
