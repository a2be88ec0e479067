"""Load Revelio Mini's bundled weights into ComfyUI's UNet, CLIP and VAE classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.latent_formats import LatentFormat

from ...errors import RevelioError
from ..comfy_types import Clip, Model, Vae
from . import config
from .random_weights import fill_with_random_weights
from .text_encoder import build_text_encoder
from .vae import build_vae
from .weights import load_strictly, load_weights


def _unet_config() -> dict[str, Any]:
    widths, blocks = config.UNET["channels"], config.UNET["blocks_per_level"]
    return {
        "image_size": config.IMAGE_SIZE // config.LATENT_SCALE,
        "in_channels": config.LATENT_CHANNELS,
        "out_channels": config.LATENT_CHANNELS,
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [blocks] * len(widths),
        "transformer_depth": [1] * (blocks * len(widths)),
        "transformer_depth_output": [1] * ((blocks + 1) * len(widths)),
        "transformer_depth_middle": 1,
        "context_dim": config.UNET["context_width"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_checkpoint": False,
        "legacy": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }


class MiniLatents(LatentFormat):
    """The latent format: the UNet sees the autoencoder's latents times `scale_factor` (unit variance)."""

    def __init__(self, scale_factor: float = 1.0) -> None:
        self.scale_factor = scale_factor


class MiniConfig(comfy.supported_models_base.BASE):
    """The description of Revelio Mini that ComfyUI needs; config.py defines the shapes."""

    unet_extra_config = {"num_heads": -1, "num_head_channels": config.UNET["head_width"]}  # noqa: RUF012
    sampling_settings = {  # noqa: RUF012
        "linear_start": config.SCHEDULE["linear_start"],
        "linear_end": config.SCHEDULE["linear_end"],
        "timesteps": config.SCHEDULE["timesteps"],
    }
    latent_format = MiniLatents
    memory_usage_factor = 1.0

    def model_type(self, state_dict: dict[str, torch.Tensor], prefix: str = "") -> Any:
        return comfy.model_base.ModelType.V_PREDICTION


def _model(
    tensors: dict[str, torch.Tensor] | None, latent_scale: float, dtype: torch.dtype = torch.float32
) -> Model:
    settings = MiniConfig(_unet_config())
    settings.latent_format = MiniLatents(latent_scale)
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    settings.set_inference_dtype(dtype, None)
    model = settings.get_model({}, device=offload_device)
    network = model.diffusion_model
    if tensors is None:
        fill_with_random_weights(network)
    else:
        names = comfy.utils.unet_to_diffusers(settings.unet_config)
        renamed = {names.get(name, name): value for name, value in tensors.items()}
        load_strictly(network, renamed, "UNet")
    network.eval()
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)


def load_mini(
    folder: Path = config.WEIGHTS_DIR, *, dtype: torch.dtype = torch.float32
) -> tuple[Model, Clip, Vae]:
    """Return the bundled model as (MODEL, CLIP, VAE). MODEL computes in `dtype`, CLIP and VAE in float32.

    Raises RevelioError when a weight file is missing or does not fit the model.
    """
    files = {name: folder / f"{name}.safetensors" for name in ("unet", "text_encoder", "vae")}
    for file in files.values():
        if not file.is_file():
            raise RevelioError(
                f"The bundled weight file {file.name} is missing from {folder}: install the pack again."
            )
    vae_tensors, metadata = load_weights(files["vae"])
    scale = float(json.loads(metadata["config"])["latent_scale"])
    model = _model(load_weights(files["unet"])[0], scale, dtype)
    return model, build_text_encoder(load_weights(files["text_encoder"])[0]), build_vae(vae_tensors)


def build_untrained() -> tuple[Model, Clip, Vae]:
    """Return (MODEL, CLIP, VAE) with random weights, for tests that check shapes rather than images."""
    vae = build_vae(None)
    fill_with_random_weights(vae.first_stage_model)
    return _model(None, 1.0), build_text_encoder(None), vae
