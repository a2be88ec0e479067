"""Load Revelio Mini's autoencoder into ComfyUI's VAE class."""

from __future__ import annotations

import re
from typing import Any

import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import RevelioError
from ..comfy_types import Vae
from . import config

_LEVELS = len(config.VAE["multipliers"])

# diffusers' weight names -> ComfyUI's; ComfyUI's AutoencoderKL counts decoder levels in reverse order
_RENAMES: tuple[tuple[str, Any], ...] = (
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{_LEVELS - 1 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{_LEVELS - 1 - int(m[1])}.upsample"),
    (r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)


class PatchAutoencoder(nn.Module):
    """An autoencoder with the usual interface that turns patches of pixels into channels internally.

    encode: images [B, 3, H, W] in -1..1 -> latents [B, 4, H/8, W/8]; decode: latents -> images.
    """

    def __init__(self, inner: nn.Module, patch: int) -> None:
        super().__init__()
        self.inner: Any = inner
        self.patch = patch

    def encode(self, pixels: Tensor) -> Tensor:
        return self.inner.encode(F.pixel_unshuffle(pixels, self.patch))

    def decode(self, latents: Tensor, **options: Any) -> Tensor:
        return F.pixel_shuffle(self.inner.decode(latents, **options), self.patch)


def build_vae(tensors: dict[str, Tensor] | None) -> Vae:
    """Return a ComfyUI VAE with `tensors` (diffusers' names) as weights; None leaves them uninitialised."""
    patch = config.VAE["patch"]
    ddconfig = {
        "double_z": True,
        "z_channels": config.LATENT_CHANNELS,
        "resolution": config.IMAGE_SIZE // patch,
        "in_channels": 3 * patch**2,
        "out_ch": 3 * patch**2,
        "ch": config.VAE["channels"],
        "ch_mult": list(config.VAE["multipliers"]),
        "num_res_blocks": config.VAE["blocks_per_level"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    renamed = {} if tensors is None else {_renamed(n): _shaped(n, t) for n, t in tensors.items()}
    vae = comfy.sd.VAE(
        sd=dict(renamed),
        config={"params": {"embed_dim": config.LATENT_CHANNELS, "ddconfig": ddconfig}},
        dtype=torch.float32,
    )
    if tensors is not None and set(renamed) != set(vae.first_stage_model.state_dict()):
        raise RevelioError(
            "The bundled autoencoder does not fit this version of the pack: install the pack again."
        )
    vae.first_stage_model = PatchAutoencoder(vae.first_stage_model, patch)
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, load_device=vae.device, offload_device=vae.patcher.offload_device
    )
    return vae


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _shaped(name: str, tensor: Tensor) -> Tensor:
    """Reshape a weight of a linear attention layer (diffusers) for a 1x1 convolution (ComfyUI)."""
    linear = ".attentions." in name and tensor.ndim == 2
    return tensor[:, :, None, None] if linear else tensor
