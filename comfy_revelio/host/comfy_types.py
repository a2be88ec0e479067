"""Types for the values of ComfyUI's sockets: the parts of MODEL, CLIP, VAE and others that this pack uses.

ComfyUI has no typed interface, and other packs pass their own classes. So these types are protocols: any
object with these attributes fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypedDict

from torch import Tensor

Image: TypeAlias = Tensor
"""IMAGE: [B, H, W, 3 or 4] in 0..1."""
Mask: TypeAlias = Tensor
"""MASK: [B, H, W] or [H, W] in 0..1."""
Conditioning: TypeAlias = list[list[Any]]
"""CONDITIONING: entries [text states [B, T, D], a dict of the model's other inputs]."""
Tokens: TypeAlias = dict[str, list[list[tuple[Any, ...]]]]
"""A tokenized prompt: the sections for each text encoder; a section is a list of (token, weight) pairs."""


class Latent(TypedDict):
    """LATENT: what a sampler takes and returns."""

    samples: Tensor
    """[B, C, H, W], or [B, C, F, H, W] for a video."""


class Model(Protocol):
    """MODEL: a `comfy.model_patcher.ModelPatcher` of a diffusion model."""

    model: Any
    """The BaseModel, whose `diffusion_model` is the network; all clones share it."""
    model_options: dict[str, Any]

    def clone(self) -> Model: ...
    def get_model_object(self, name: str) -> Any: ...
    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Callable[..., Any]) -> None: ...
    def get_additional_models_with_key(self, key: str) -> Sequence[Model]: ...
    def set_additional_models(self, key: str, models: Sequence[Model]) -> None: ...


class Clip(Protocol):
    """CLIP: a `comfy.sd.CLIP`, one or several text encoders with their tokenizers."""

    cond_stage_model: Any
    """The text model, whose attributes (clip_l, t5xxl ...) are the encoders; all clones share it."""
    tokenizer: Any
    layer_idx: int | None
    """The layer chosen by CLIP Set Last Layer: a negative number, counted from the end."""

    def clone(self) -> Clip: ...
    def tokenize(self, text: str) -> Tokens: ...
    def encode_from_tokens(self, tokens: Tokens) -> Tensor: ...
    def encode_from_tokens_scheduled(self, tokens: Tokens) -> Conditioning: ...


class Vae(Protocol):
    """VAE: a `comfy.sd.VAE`."""

    first_stage_model: Any

    def encode(self, pixel_samples: Tensor) -> Tensor: ...
    def decode(self, samples_in: Tensor) -> Tensor: ...
