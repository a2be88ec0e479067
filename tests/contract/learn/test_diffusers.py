"""The papers' hook points: what our taps see in ComfyUI is what hooks see in diffusers, for the same weights.

The weights are made in diffusers and carried over by ComfyUI's own converters of diffusers checkpoints. Each
model call of ComfyUI's sampler, with its two conditionings and two pictures, is then repeated in diffusers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..architectures import ARCHITECTURES, POOLED, TEXT, randomize
from ..seen import Seen, sample

RELATIVE = 1e-4


@dataclass(frozen=True)
class Paper:
    """How one family is in diffusers.

    make: the small model. convert: its weights under ComfyUI's names. call: diffusers' model on what
    ComfyUI gave to its own. points: papers' names (captured, element of a tuple).
    """

    make: Callable[[], nn.Module]
    convert: Callable[[Any, nn.Module], dict[str, Tensor]]
    call: Callable[[nn.Module, Tensor, Tensor, dict[str, Any]], None]
    points: dict[str, tuple[str, int]]


def _unet(channels: tuple[int, ...], crossed: tuple[bool, ...], **more: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    down = tuple("CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossed)
    up = tuple("CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossed))
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=TEXT,
        **more,
    )


def _sd1() -> nn.Module:
    return _unet((32, 64, 128, 128), (True, True, True, False), attention_head_dim=8)


def _sdxl() -> nn.Module:
    return _unet(
        (32, 64, 128),
        (False, True, True),
        attention_head_dim=(1, 1, 2),
        transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=POOLED + 6 * 256,
    )


def _sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=3,
        attention_head_dim=64,
        num_attention_heads=3,
        joint_attention_dim=TEXT,
        caption_projection_dim=192,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


def _flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )


def _unet_weights(model: Any, paper: nn.Module) -> dict[str, Tensor]:
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {names[name]: value for name, value in paper.state_dict().items()}


def _transformer_weights(_model: Any, paper: nn.Module) -> dict[str, Tensor]:
    from comfy.model_detection import convert_diffusers_mmdit

    weights = {name: value.clone() for name, value in paper.state_dict().items()}
    converted = convert_diffusers_mmdit(weights)
    assert not weights, "weights that ComfyUI has no name for"
    return converted


def _call_unet(paper: nn.Module, x: Tensor, t: Tensor, kwargs: dict[str, Any]) -> None:
    added = None
    if kwargs.get("y") is not None:  # SDXL's pooled text; the size in pixels, no crop, the size
        size = [8 * x.shape[2], 8 * x.shape[3]]
        sizes = torch.tensor([[*size, 0, 0, *size]]).expand(len(x), -1)
        added = {"text_embeds": kwargs["y"][:, :POOLED], "time_ids": sizes}
    paper(x, t, encoder_hidden_states=kwargs["context"], added_cond_kwargs=added)


def _call_sd3(paper: nn.Module, x: Tensor, t: Tensor, kwargs: dict[str, Any]) -> None:
    paper(x, encoder_hidden_states=kwargs["context"], pooled_projections=kwargs["y"], timestep=t)


def _call_flux(paper: nn.Module, x: Tensor, t: Tensor, kwargs: dict[str, Any]) -> None:
    batch, channels, height, width = x.shape
    packed = x.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    ids = torch.zeros(height // 2, width // 2, 3)
    ids[..., 1] += torch.arange(height // 2)[:, None]
    ids[..., 2] += torch.arange(width // 2)
    paper(
        packed.reshape(batch, -1, channels * 4),
        encoder_hidden_states=kwargs["context"],
        pooled_projections=kwargs["y"],
        timestep=t,
        guidance=kwargs["guidance"],
        img_ids=ids.reshape(-1, 3),
        txt_ids=torch.zeros(kwargs["context"].shape[1], 3),
    )


SIZES = {"sd1": (4, 16, 8), "sdxl": (4, 12, 8), "sd3": (16, 8, 6), "flux": (16, 8, 6)}
PAPERS = {
    "sd1": Paper(
        _sd1,
        _unet_weights,
        _call_unet,
        {
            "mid_block": ("output", 0),
            "up_blocks.0": ("output", 0),
            "up_blocks.1": ("output", 0),
            "up_blocks.2": ("output", 0),
            "unet.up_blocks.1.attentions.1": ("output", 0),
            "up_blocks.1.attentions.2": ("output", 0),
            "down_blocks.0.attentions.1": ("diff", 0),
            "down_blocks.2.downsamplers.0": ("output", 0),
        },
    ),
    "sdxl": Paper(
        _sdxl,
        _unet_weights,
        _call_unet,
        {
            "unet.down_blocks.2.attentions.1": ("diff", 0),
            "unet.mid_block.attentions.0": ("diff", 0),
            "unet.up_blocks.0.attentions.0": ("diff", 0),
            "unet.up_blocks.0.attentions.1": ("diff", 0),
            "up_blocks.0.attentions.1.transformer_blocks.2.ff.net.0": ("output", 0),
        },
    ),
    "sd3": Paper(
        _sd3,
        _transformer_weights,
        _call_sd3,
        {
            "transformer_blocks.0": ("output", 1),
            "transformer_blocks.1": ("diff", 1),
            "transformer_blocks.2": ("output", 1),
            "transformer_blocks.1.txt": ("output", 0),
        },
    ),
    "flux": Paper(
        _flux,
        _transformer_weights,
        _call_flux,
        {
            "transformer_blocks.0": ("output", 1),
            "transformer.transformer_blocks.1": ("diff", 1),
            "transformer_blocks.0.txt": ("output", 0),
            "transformer_blocks.1.ff": ("output", 0),
            "single_transformer_blocks.0": ("output", 1),
            "single_transformer_blocks.1": ("output", 1),
            "single_transformer_blocks.1.txt": ("output", 0),
        },
    ),
}


@pytest.mark.parametrize("name", PAPERS)
def test_taps_see_what_the_papers_see(pack: Any, name: str) -> None:
    paper, architecture = PAPERS[name], ARCHITECTURES[name]
    hookpoints, taps = pack("comfy_revelio.hookpoints"), pack("comfy_revelio.host.taps.model")
    model = tapped = architecture.build()
    network = model.model.diffusion_model
    theirs = paper.make().eval()
    randomize(theirs, seed=3)
    network.load_state_dict(paper.convert(model, theirs), strict=True)

    ours = Seen()
    for point, (captured, _) in paper.points.items():
        hook_point = hookpoints.resolve(network, point)
        tapped = taps.tap(tapped, hook_point, ours.at(point), captured=captured)
    calls: list[tuple[Tensor, Tensor, dict[str, Any]]] = []
    handle = network.register_forward_pre_hook(
        lambda _module, args, kwargs: calls.append((args[0].clone(), args[1].clone(), dict(kwargs))),
        with_kwargs=True,
    )
    try:
        latent = torch.zeros(2, *SIZES[name])
        sample(tapped, latent, architecture.prompt(1), architecture.prompt(2), cfg=7.0)
    finally:
        handle.remove()

    assert len(calls) == 2
    for step, (x, t, kwargs) in enumerate(calls):
        for point, expected in _heard(theirs, paper, x, t, kwargs).items():
            for chunk, role in enumerate(("uncond", "cond")):
                own, want = ours.tokens[point, role, step], expected[2 * chunk : 2 * chunk + 2]
                assert own.shape == want.shape, point
                off = float((own - want).abs().max() / want.abs().max())
                assert off < RELATIVE, f"{point}, step {step}, {role}: {off:.2e}"


@torch.no_grad()
def _heard(
    theirs: nn.Module, paper: Paper, x: Tensor, t: Tensor, kwargs: dict[str, Any]
) -> dict[str, Tensor]:
    """What hooks at the papers' names see in one call of diffusers' model: tokens [B, T, C]."""
    heard: dict[str, Tensor] = {}

    def hook(point: str, captured: str, element: int) -> Callable[..., None]:
        def look(_module: nn.Module, args: Any, given: dict[str, Any], output: Any) -> None:
            own = output[element] if isinstance(output, tuple) else output
            if captured == "diff":
                own = own - (args[0] if args else given["hidden_states"])
            heard[point] = own.flatten(2).transpose(1, 2) if own.ndim == 4 else own

        return look

    handles = []
    for point, (captured, element) in paper.points.items():
        path = point.removeprefix("unet.").removeprefix("transformer.").removesuffix(".txt")
        handles.append(
            theirs.get_submodule(path).register_forward_hook(hook(point, captured, element), with_kwargs=True)
        )
    try:
        paper.call(theirs, x, t, kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return heard
