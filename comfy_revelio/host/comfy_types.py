"""Types for the values of ComfyUI's sockets (MODEL, CLIP, VAE ...), with only the parts that this pack uses.

ComfyUI has no typed interface, and other packs may pass classes of their own. Most of these types are
therefore protocols: any object with the listed attributes fits.
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
"""CONDITIONING: a list of entries [text states [B, T, D], dict with the model's other inputs]."""
Tokens: TypeAlias = dict[str, list[list[tuple[Any, ...]]]]
"""A tokenized prompt: {text encoder: its sections}. A section is a list of tuples (token, weight, ...)."""


class Latent(TypedDict):
    """LATENT: the input and the output of a sampler."""

    samples: Tensor
    """[B, C, H, W], or [B, C, F, H, W] for a video."""


class Model(Protocol):
    """MODEL: a `comfy.model_patcher.ModelPatcher` of a diffusion model."""

    model: Any
    """The BaseModel, shared by all clones; its `diffusion_model` is the network."""
    model_options: dict[str, Any]

    def clone(self) -> Model: ...
    def get_model_object(self, name: str) -> Any: ...
    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Callable[..., Any]) -> None: ...
    def get_additional_models_with_key(self, key: str) -> Sequence[Model]: ...
    def set_additional_models(self, key: str, models: Sequence[Model]) -> None: ...


class Clip(Protocol):
    """CLIP: a `comfy.sd.CLIP`, one or several text encoders with their tokenizers."""

    cond_stage_model: Any
    """The text model, shared by all clones; its attributes (clip_l, t5xxl ...) are the encoders."""
    tokenizer: Any
    layer_idx: int | None
    """The layer chosen by the node CLIP Set Last Layer, as a negative number (-1 is the last layer)."""

    def clone(self) -> Clip: ...
    def tokenize(self, text: str) -> Tokens: ...
    def encode_from_tokens(self, tokens: Tokens) -> Tensor: ...
    def encode_from_tokens_scheduled(self, tokens: Tokens) -> Conditioning: ...


class Vae(Protocol):
    """VAE: a `comfy.sd.VAE`."""

    first_stage_model: Any

    def encode(self, pixel_samples: Tensor) -> Tensor: ...
    def decode(self, samples_in: Tensor) -> Tensor: ...
