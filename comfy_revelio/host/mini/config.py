"""The shapes of Revelio Mini: every number that data, training and ComfyUI must agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

IMAGE_SIZE = 128
"""Side of a training image in pixels."""

LATENT_SCALE = 8
"""Pixels per latent cell along each side."""

LATENT_CHANNELS = 4

CONTEXT_TOKENS = 77
"""Length of one prompt section, as in CLIP."""

WEIGHTS_DIR = Path(__file__).resolve().parents[3] / "sae_weights" / "revelio_mini"
"""Folder of the bundled weights: one `.safetensors` file each for unet, text_encoder, vae and judge."""

UNET: dict[str, Any] = {
    "channels": (96, 192),
    "blocks_per_level": 2,
    "head_width": 32,
    "context_width": 192,
}
"""A UNet of the SD family: channels at its two resolutions (16x16 and 8x8), residual blocks per
resolution, width of an attention head, width of the text states."""

TEXT: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": CONTEXT_TOKENS,
}
"""A CLIP text transformer; the keys are those of CLIP's JSON configuration."""

VAE: dict[str, Any] = {
    "patch": 2,
    "channels": 64,
    "multipliers": (1, 1, 2),
    "blocks_per_level": 1,
}
"""A convolutional autoencoder that reads and writes patches of 2x2 pixels as 12 channels, to avoid costly
work at full resolution. Then: base width, width multiplier and residual blocks per resolution."""

SCHEDULE: dict[str, Any] = {"timesteps": 1000, "linear_start": 0.00085, "linear_end": 0.012}
"""Noise schedule of Stable Diffusion 1 ("scaled linear"); the UNet predicts velocity."""

BOS_TOKEN, EOS_TOKEN, VOCABULARY = 49406, 49407, 49408
"""Start token, end token and size of CLIP's byte-pair vocabulary."""
