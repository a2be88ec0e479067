"""Revelio Mini's shapes and other constants that its data, its training and ComfyUI share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

IMAGE_SIZE = 128
"""Side of a training image in pixels."""

LATENT_SCALE = 8
"""Width and height of one latent cell in pixels."""

LATENT_CHANNELS = 4

CONTEXT_TOKENS = 77
"""Length of one prompt section in tokens, as in CLIP."""

WEIGHTS_DIR = Path(__file__).resolve().parents[3] / "sae_weights" / "revelio_mini"
"""Folder of the bundled weights, with one `.safetensors` file per part: unet, text_encoder, vae, judge."""

UNET: dict[str, Any] = {
    "channels": (96, 192),
    "blocks_per_level": 2,
    "head_width": 32,
    "context_width": 192,
}
"""A UNet of the SD family, with its channels at 16x16 and 8x8, number of residual blocks per resolution,
width of each attention head, and width of the text states."""

TEXT: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": CONTEXT_TOKENS,
}
"""A CLIP text transformer, described with the keys of CLIP's JSON configuration."""

VAE: dict[str, Any] = {
    "patch": 2,
    "channels": 64,
    "multipliers": (1, 1, 2),
    "blocks_per_level": 1,
}
"""A convolutional autoencoder. It treats patches of 2x2 pixels as 12 channels, to avoid costly work at full
resolution. channels: base width; multipliers: its factors per level; blocks_per_level: residual blocks."""

SCHEDULE: dict[str, Any] = {"timesteps": 1000, "linear_start": 0.00085, "linear_end": 0.012}
"""The noise schedule of Stable Diffusion 1 ("scaled linear"). The UNet predicts velocity."""

BOS_TOKEN, EOS_TOKEN, VOCABULARY = 49406, 49407, 49408
"""CLIP's start token, its end token, and the size of its byte-pair vocabulary."""
