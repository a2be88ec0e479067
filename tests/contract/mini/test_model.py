"""The bundled networks give the same numbers in ComfyUI's classes as in the libraries that trained them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

CAPTIONS = [
    "a flat cartoon of a smiling person with blue hair, glasses",
    "pixel art, beard",
    "an unknown zebra",
]


@pytest.fixture(scope="module")
def trio(pack: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Random weights written as training does it: the libraries' networks, and ComfyUI's from the files."""
    torch.manual_seed(3)
    networks = import_module("lab.train.networks")
    tokens = import_module("lab.train.tokenizer")
    checkpoint = import_module("lab.train.checkpoint")
    folder: Path = tmp_path_factory.mktemp("mini")
    tokenizer = tokens.load_tokenizer()
    vocabulary = tokens.small_vocabulary(tokens.tokenize(tokenizer, CAPTIONS[:2]))
    unet, vae = networks.build_unet().eval(), networks.build_vae().eval()
    text = networks.build_text_encoder(len(vocabulary) + 1).eval()
    train_model = import_module("lab.train.unet_and_text_encoder")
    weights = {
        **{f"unet.{n}": p for n, p in unet.named_parameters()},
        **{f"text.{n}": p for n, p in text.named_parameters()},
    }
    unet_file, text_file = folder / "unet.safetensors", folder / "text_encoder.safetensors"
    train_model.export(weights, vocabulary, {}, unet_file, text_file)
    metadata = {"config": json.dumps({"latent_scale": 0.25})}
    checkpoint.save_weights(vae.state_dict(), folder / "vae.safetensors", metadata=metadata)
    # the files are in half precision; compare against what was stored
    unet, (text, _) = train_model.load_unet(unet_file), train_model.load_text_encoder(text_file)
    vae, scale = import_module("lab.train.vae").load_vae(folder / "vae.safetensors")
    model, clip, comfy_vae = pack("comfy_revelio.host.mini.model").load_mini(folder)
    return SimpleNamespace(
        unet=unet, text=text, vae=vae, scale=scale, vocabulary=vocabulary, tokenizer=tokenizer, tokens=tokens,
        model=model, clip=clip, comfy_vae=comfy_vae, folder=folder,
        train_vae=import_module("lab.train.vae"),
    )  # fmt: skip


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@torch.no_grad()
def test_unet_equals_diffusers_on_a_grid_that_is_not_square(trio: SimpleNamespace) -> None:
    x, t, context = torch.randn(2, 4, 24, 16), torch.tensor([10.0, 700.0]), torch.randn(2, 77, 192)
    expected = trio.unet(x, t, context, return_dict=False)[0]
    assert distance(trio.model.model.diffusion_model(x, t, context=context), expected) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("caption", CAPTIONS)
def test_text_equals_transformers_also_for_words_outside_the_vocabulary(
    trio: SimpleNamespace, caption: str
) -> None:
    ids = trio.tokens.to_small(trio.tokens.tokenize(trio.tokenizer, [caption]), trio.vocabulary)
    expected = trio.text(input_ids=torch.from_numpy(ids.astype("int64"))).last_hidden_state
    states = trio.clip.encode_from_tokens_scheduled(trio.clip.tokenize(caption))[0][0]
    assert distance(states, expected) < 1e-5


@torch.no_grad()
def test_vae_equals_diffusers_both_ways_and_scales_latents(trio: SimpleNamespace) -> None:
    images = torch.rand(2, 64, 128, 3)
    latents = trio.comfy_vae.encode(images)
    pixels = (images * 2 - 1).permute(0, 3, 1, 2)
    assert distance(latents, trio.train_vae.moments_of(trio.vae, pixels).chunk(2, dim=1)[0]) < 1e-5
    expected = ((trio.train_vae.decode(trio.vae, latents) + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    assert distance(trio.comfy_vae.decode(latents), expected) < 1e-4
    scaled = trio.model.model.process_latent_in(latents)
    assert torch.allclose(scaled, latents * trio.scale)


def test_the_noise_schedule_is_comfyuis(trio: SimpleNamespace, pack: Callable[[str], ModuleType]) -> None:
    alphas = import_module("lab.train.networks").noise_schedule().double()
    sigmas = trio.model.get_model_object("model_sampling").sigmas.double()
    assert torch.allclose(((1 - alphas) / alphas).sqrt(), sigmas, rtol=1e-4)


def test_a_missing_weight_file_is_named(
    trio: SimpleNamespace, pack: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    errors: Any = pack("comfy_revelio.errors")
    with pytest.raises(errors.RevelioError, match=r"unet\.safetensors is missing"):
        pack("comfy_revelio.host.mini.model").load_mini(tmp_path)
