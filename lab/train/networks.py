"""Build the three networks of Revelio Mini for training, from diffusers and transformers.

ComfyUI builds the same networks from its own classes (`host/mini/`). The weights are stored under the names
of diffusers and transformers, which ComfyUI can translate. Only training needs these two libraries.
"""

from __future__ import annotations

from typing import Any

import torch

from comfy_revelio.host.mini import config


def build_unet() -> Any:
    """Build the UNet: latents [B, 4, h, w], timesteps [B], text states [B, 77, 192] -> velocity."""
    from diffusers import UNet2DConditionModel

    widths = config.UNET["channels"]
    return UNet2DConditionModel(
        sample_size=config.IMAGE_SIZE // config.LATENT_SCALE,
        in_channels=config.LATENT_CHANNELS,
        out_channels=config.LATENT_CHANNELS,
        block_out_channels=widths,
        layers_per_block=config.UNET["blocks_per_level"],
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        cross_attention_dim=config.UNET["context_width"],
        # diffusers calls the number of heads "attention_head_dim"
        attention_head_dim=tuple(width // config.UNET["head_width"] for width in widths),
        norm_num_groups=32,
    )


def build_text_encoder(vocabulary: int) -> Any:
    """Build the text encoder for `vocabulary` tokens: ids [B, 77] -> last layer's states [B, 77, 192]."""
    from transformers import CLIPTextConfig, CLIPTextModel

    # the tokens for start and end of text have the highest ids, in CLIP and so also in the small vocabulary
    ends = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    return CLIPTextModel(CLIPTextConfig(vocab_size=vocabulary, **ends, **config.TEXT))


def build_vae() -> Any:
    """Build the autoencoder: pixel patches [B, 12, H/2, W/2] in -1..1 <-> latents [B, 4, H/8, W/8]."""
    from diffusers import AutoencoderKL

    levels, patch = len(config.VAE["multipliers"]), config.VAE["patch"]
    return AutoencoderKL(
        in_channels=3 * patch**2,
        out_channels=3 * patch**2,
        latent_channels=config.LATENT_CHANNELS,
        block_out_channels=tuple(config.VAE["channels"] * m for m in config.VAE["multipliers"]),
        layers_per_block=config.VAE["blocks_per_level"],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=32,
        sample_size=config.IMAGE_SIZE,
    )


def noise_schedule(device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the cumulative alphas [1000] of the schedule (DDPM's alpha-bar), float32."""
    start, end = config.SCHEDULE["linear_start"], config.SCHEDULE["linear_end"]
    roots = torch.linspace(start**0.5, end**0.5, config.SCHEDULE["timesteps"], dtype=torch.float64)
    return torch.cumprod(1.0 - roots**2, dim=0).float().to(device)
