"""Small models of every family, from ComfyUI's own classes, with random weights and conditionings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

TEXT = 24  # width of the text states
POOLED = 16
NEWER: dict[str, Any] = {
    "txt_ids_dims": [],
    "vec_in_dim": None,
    "meanflow_sum": False,
    "use_x0": False,
    "use_sequential_txt_ids": False,
}


@dataclass(frozen=True)
class Spot:
    """What a hook point must show: the grid, and where its tokens lie in what the module puts out.

    element: of a tuple, None for a bare tensor. tokens: of a sequence; maps have none. newer: the tokens in
    versions of ComfyUI that put the text of this family ahead.
    """

    grid: tuple[int, ...]
    element: int | None = None
    tokens: slice = field(default_factory=lambda: slice(None))
    newer: slice | None = None

    def tokens_in(self, network: nn.Module) -> slice:
        if self.newer is None or "img_slice" not in inspect.getsource(type(network).forward_orig):
            return self.tokens
        return self.newer


@dataclass(frozen=True)
class Architecture:
    """config: name of the class in comfy.supported_models; unet: its configuration.

    latent: channels, (frames,) height, width: not square, and odd where the family pads. tokens: of a
    prompt. extras: what stands beside the text states of a conditioning, by the number of its tokens.
    points: a few hook points. params: the class that checks the configuration, "module.Class" in comfy.ldm.
    """

    config: str
    unet: dict[str, Any]
    latent: tuple[int, ...]
    points: dict[str, Spot]
    tokens: int = 7
    extras: Callable[[int], dict[str, Any]] = field(default=lambda tokens: {})
    params: str = ""

    def build(self, seed: int = 0) -> Any:
        """A ModelPatcher in float32."""
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models

        settings = getattr(comfy.supported_models, self.config)({**self._newer(), **self.unet})
        settings.set_inference_dtype(torch.float32, None)
        device = comfy.model_management.get_torch_device()
        model = settings.get_model({}, device=device)
        randomize(model.diffusion_model, seed)
        model.diffusion_model.eval()
        return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)

    def _newer(self) -> dict[str, Any]:
        """What newer versions of ComfyUI want to know beside the configuration."""
        if not self.params:
            return {}
        module, _, name = self.params.rpartition(".")
        known = {item.name for item in fields(getattr(import_module(f"comfy.ldm.{module}"), name))}
        return {key: value for key, value in NEWER.items() if key in known}

    def prompt(self, seed: int, tokens: int = 0) -> list[list[Any]]:
        """A conditioning, as a text encoder node makes it."""
        count = tokens or self.tokens
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(1, count, TEXT, generator=generator)
        pooled = torch.randn(1, POOLED, generator=generator)
        return [[states, {"pooled_output": pooled, **self.extras(count)}]]

    def empty(self, batch: int) -> Tensor:
        return torch.zeros(batch, *self.latent)


def randomize(network: nn.Module, seed: int) -> None:
    """Weights that keep activations near 1, biases and norms too: ComfyUI's layers come uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                value.copy_(noise / value[0].numel() ** 0.5)
            else:
                value.copy_(0.1 * noise + (1.0 if "norm" in name and "bias" not in name else 0.0))
        for value in network.buffers():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator))


def unet(mult: list[int], depth: list[int], middle: int, **more: Any) -> dict[str, Any]:
    """depth: transformers of each level; two residual blocks on each."""
    return {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "channel_mult": mult,
        "num_res_blocks": [2] * len(mult),
        "transformer_depth": [d for d in depth for _ in range(2)],
        "transformer_depth_output": [d for d in depth for _ in range(3)],
        "transformer_depth_middle": middle,
        "context_dim": TEXT,
        "use_spatial_transformer": True,
        "use_checkpoint": False,
        "legacy": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        "use_linear_in_transformer": False,
        **more,
    }


def unet_xl(mult: list[int], depth: list[int], middle: int, sizes: int = 6) -> dict[str, Any]:
    adm = {"num_classes": "sequential", "adm_in_channels": POOLED + 256 * sizes}
    return unet(mult, depth, middle, use_linear_in_transformer=True, **adm)


def flux(patch: int = 2, channels: int = 16, **more: Any) -> dict[str, Any]:
    return {
        "in_channels": channels,
        "out_channels": channels,
        "vec_in_dim": POOLED,
        "context_in_dim": TEXT,
        "hidden_size": 32,
        "mlp_ratio": 4.0,
        "num_heads": 2,
        "depth": 2,
        "depth_single_blocks": 2,
        "axes_dim": [4, 6, 6],
        "theta": 10000,
        "patch_size": patch,
        "qkv_bias": True,
        "guidance_embed": True,
        **more,
    }


_GUIDE = {"in_dim": 64, "out_dim": 32, "hidden_dim": 32, "n_layers": 2}  # Chroma's guidance network


def chroma(**more: Any) -> dict[str, Any]:
    wanted = flux(**_GUIDE, **more)
    for name in ("vec_in_dim", "guidance_embed"):
        wanted.pop(name)
    return wanted


def lumina(**more: Any) -> dict[str, Any]:
    return {
        "patch_size": 2,
        "in_channels": 16,
        "dim": 48,
        "n_layers": 2,
        "n_refiner_layers": 2,
        "n_heads": 3,
        "n_kv_heads": 3,
        "multiple_of": 8,
        "ffn_dim_multiplier": 1.0,
        "qk_norm": True,
        "cap_feat_dim": TEXT,
        "axes_dims": [4, 6, 6],
        "axes_lens": [64, 64, 64],
        **more,
    }


def hydit_extras(tokens: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(tokens)
    return {
        "attention_mask": torch.ones(1, tokens),
        "conditioning_mt5xl": torch.randn(1, 9, 40, generator=generator),
        "attention_mask_mt5xl": torch.ones(1, 9),
    }


def hidream_extras(tokens: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(tokens)
    return {"conditioning_llama3": torch.randn(1, 3, tokens, TEXT, generator=generator)}


GRID, WORDS = (4, 3), (1, 7)
FIRST, BEHIND = slice(0, 12), slice(7, 19)  # 12 tokens of the picture ahead of, or behind, 7 of the prompt
HEAD, TAIL = slice(0, 7), slice(12, 19)  # those of the prompt

FLUX = {
    "double_blocks.0": Spot(GRID, 0),
    "double_blocks.1": Spot(GRID, 0),
    "double_blocks.0.txt": Spot(WORDS, 1),
    "single_blocks.0": Spot(GRID, tokens=BEHIND),
    "single_blocks.1.txt": Spot(WORDS, tokens=HEAD),
    "single_blocks.1.linear2": Spot(GRID, tokens=BEHIND),
}

ARCHITECTURES: dict[str, Architecture] = {
    "sd1": Architecture(
        "SD15",
        unet([1, 2, 4, 4], [1, 1, 1, 0], 1, num_heads=8),
        (4, 16, 8),
        {
            "middle_block.1": Spot((2, 1)),
            "output_blocks.4.1": Spot((4, 2)),
            "input_blocks.1.0": Spot((16, 8)),
        },
    ),
    "sd2": Architecture(
        "SD20",
        unet([1, 2, 4], [1, 1, 0], 1, use_linear_in_transformer=True, model_channels=64),
        (4, 12, 8),
        {"middle_block.1": Spot((3, 2)), "output_blocks.4.1": Spot((6, 4))},
    ),
    "sdxl": Architecture(
        "SDXL",
        unet_xl([1, 2, 4], [0, 2, 3], 3),
        (4, 12, 8),
        {"middle_block.1": Spot((3, 2)), "output_blocks.0.1": Spot((3, 2)), "input_blocks.8.1": Spot((3, 2))},
    ),
    "sdxl refiner": Architecture(
        "SDXLRefiner",
        unet_xl([1, 2, 4, 4], [0, 1, 1, 0], 1, sizes=5),
        (4, 16, 8),
        {"middle_block.1": Spot((2, 1)), "output_blocks.5.1": Spot((4, 2))},
    ),
    "ssd-1b": Architecture(
        "SSD1B",
        unet_xl([1, 2, 4], [0, 2, 1], -1),
        (4, 12, 8),
        {"middle_block.0": Spot((3, 2)), "output_blocks.1.1": Spot((3, 2))},
    ),
    "sd3": Architecture(
        "SD3",
        {
            "in_channels": 16,
            "patch_size": 2,
            "depth": 3,
            "num_blocks": 3,
            "input_size": None,
            "adm_in_channels": POOLED,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": TEXT, "out_features": 192},
            },
            "pos_embed_max_size": 8,
            "num_patches": 64,
            "pos_embed_scaling_factor": None,
            "qk_norm": "rms",
            "x_block_self_attn_layers": [0],
        },
        (16, 7, 6),
        {
            "joint_blocks.0": Spot(GRID, 1),
            "joint_blocks.2": Spot(GRID, 1),
            "joint_blocks.1.txt": Spot(WORDS, 0),
            "joint_blocks.0.x_block.mlp": Spot(GRID),
            "joint_blocks.0.context_block.mlp": Spot(WORDS),
        },
    ),
    "flux": Architecture("Flux", flux(), (16, 7, 6), FLUX, params="flux.model.FluxParams"),
    "flux2": Architecture(
        "Flux2",
        flux(
            1,
            128,
            vec_in_dim=None,
            axes_dim=[4, 4, 4, 4],
            global_modulation=True,
            mlp_silu_act=True,
            qkv_bias=False,
            ops_bias=False,
            theta=2000,
        ),
        (128, 4, 3),
        {
            "double_blocks.0": Spot(GRID, 0),
            "double_blocks.0.txt": Spot((1, 512), 1),  # prompts are filled up to 512 tokens
            "single_blocks.0": Spot(GRID, tokens=slice(512, None)),
            "single_blocks.1.txt": Spot((1, 512), tokens=slice(512)),
        },
        params="flux.model.FluxParams",
    ),
    "chroma": Architecture(
        "Chroma", chroma(channels=64), (16, 7, 6), FLUX, params="chroma.model.ChromaParams"
    ),
    "chroma radiance": Architecture(
        "ChromaRadiance",
        chroma(
            patch=2,
            channels=3,
            nerf_hidden_size=8,
            nerf_mlp_ratio=2,
            nerf_depth=1,
            nerf_max_freqs=2,
            nerf_tile_size=0,
            nerf_final_head_type="conv",
            nerf_embedder_dtype=None,
        ),
        (3, 7, 6),
        FLUX,
        params="chroma_radiance.model.ChromaRadianceParams",
    ),
    "qwen-image": Architecture(
        "QwenImage",
        {
            "in_channels": 64,
            "out_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": TEXT,
            "axes_dims_rope": (4, 6, 6),
        },
        (16, 1, 7, 6),
        {
            "transformer_blocks.0": Spot(GRID, 1),
            "transformer_blocks.1": Spot(GRID, 1),
            "transformer_blocks.0.txt": Spot(WORDS, 0),
        },
    ),
    "lumina2": Architecture(
        "Lumina2",
        lumina(),
        (16, 7, 6),
        {
            "context_refiner.1": Spot(WORDS),
            "noise_refiner.0": Spot(GRID),
            "layers.0": Spot(GRID, tokens=BEHIND),
            "layers.1.txt": Spot(WORDS, tokens=HEAD),
        },
    ),
    "z-image": Architecture(
        "ZImage",
        lumina(
            z_image_modulation=True,
            pad_tokens_multiple=8,
            time_scale=1000.0,
            dim=256,
            n_heads=16,
            n_kv_heads=16,
        ),
        (16, 7, 6),
        {
            # 7 tokens of the prompt and 12 of the picture are filled up to 8 and 16
            "context_refiner.1": Spot((1, 8)),
            "noise_refiner.0": Spot(GRID, tokens=FIRST),
            "layers.0": Spot(GRID, tokens=slice(8, 20)),
            "layers.1.txt": Spot((1, 8), tokens=slice(0, 8)),
            "layers.1.feed_forward": Spot(GRID, tokens=slice(8, 20)),
        },
    ),
    "auraflow": Architecture(
        "AuraFlow",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 4,
            "n_double_layers": 2,
            "n_heads": 2,
            "global_conddim": 32,
            "cond_seq_dim": TEXT,
            "max_seq": 64,
        },
        (4, 7, 6),
        {
            "double_layers.0": Spot(GRID, 1),
            "double_layers.1.txt": Spot((1, 15), 0),  # 8 registers and the prompt
            "single_layers.0": Spot(GRID, tokens=slice(15, 27)),
            "single_layers.1.txt": Spot((1, 15), tokens=slice(0, 15)),
        },
    ),
    "pixart": Architecture(
        "PixArtAlpha",
        {
            "hidden_size": 48,
            "depth": 2,
            "num_heads": 2,
            "caption_channels": TEXT,
            "model_max_length": 7,
            "micro_condition": True,
            "input_size": 8,
            "pe_interpolation": 1.0,
        },
        (4, 40, 32),  # this family takes whole patches only, and no very small pictures
        {"blocks.0": Spot((20, 16)), "blocks.1.mlp": Spot((20, 16))},
    ),
    "hunyuandit": Architecture(
        "HunyuanDiT",
        {
            "hidden_size": 64,
            "depth": 4,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "text_states_dim": TEXT,
            "text_states_dim_t5": 40,
            "text_len": 7,
            "text_len_t5": 9,
            "size_cond": True,
            "use_style_cond": True,
        },
        (4, 7, 6),
        {"blocks.0": Spot(GRID), "blocks.3": Spot(GRID)},
        extras=hydit_extras,
    ),
    "hidream": Architecture(
        "HiDream",
        {
            "patch_size": 2,
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "caption_channels": [TEXT, TEXT],
            "text_emb_dim": POOLED,
            "axes_dims_rope": (4, 6, 6),
            "max_resolution": (32, 32),
            "llama_layers": [0, 1, 2],
        },
        (16, 7, 6),
        {
            "double_stream_blocks.0": Spot(GRID, 0),
            "double_stream_blocks.1.txt": Spot((1, 21), 1),  # three sets of 7
            "single_stream_blocks.0": Spot(GRID, tokens=FIRST),
            "single_stream_blocks.0.txt": Spot((1, 21), tokens=slice(12, None)),
        },
        extras=hidream_extras,
    ),
    "wan": Architecture(
        "WAN21_T2V",
        {
            "model_type": "t2v",
            "patch_size": (1, 2, 2),
            "dim": 48,
            "ffn_dim": 64,
            "freq_dim": 32,
            "text_dim": TEXT,
            "num_heads": 2,
            "num_layers": 2,
            "in_dim": 16,
            "out_dim": 16,
            "in_dim_ref_conv": 16,
        },
        (16, 3, 7, 6),
        {
            "blocks.0": Spot((3, 4, 3)),
            "blocks.1": Spot((3, 4, 3)),
            "blocks.0.ffn": Spot((3, 4, 3)),
            "blocks.0.cross_attn.k": Spot(WORDS),
            "patch_embedding": Spot((3, 4, 3)),
        },
    ),
    "hunyuan video": Architecture(
        "HunyuanVideo",
        {
            **flux(channels=16),
            "patch_size": [1, 2, 2],
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
        },
        (16, 3, 8, 6),  # this family takes whole patches only
        {
            "double_blocks.0": Spot((3, 4, 3), 0),
            "double_blocks.1.txt": Spot(WORDS, 1),
            "single_blocks.0": Spot((3, 4, 3), tokens=slice(0, 36), newer=slice(7, None)),
            "single_blocks.1.txt": Spot(WORDS, tokens=slice(36, None), newer=HEAD),
        },
        params="hunyuan_video.model.HunyuanVideoParams",
    ),
    "hunyuan image": Architecture(
        "HunyuanImage21",
        {
            **flux(channels=64),
            "axes_dim": [8, 8],
            "patch_size": [1, 1],
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
            "vec_in_dim": None,
        },
        (64, 4, 3),
        {
            "double_blocks.0": Spot(GRID, 0),
            "double_blocks.1.txt": Spot(WORDS, 1),
            "single_blocks.0": Spot(GRID, tokens=FIRST, newer=BEHIND),
            "single_blocks.1.txt": Spot(WORDS, tokens=TAIL, newer=HEAD),
        },
        params="hunyuan_video.model.HunyuanVideoParams",
    ),
}
