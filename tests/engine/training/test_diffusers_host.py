"""Harvesting from a whole diffusers pipeline folder on the command line, of tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from comfy_revelio.cli.main import main
from comfy_revelio.errors import RevelioError
from comfy_revelio.training import ShardSet
from comfy_revelio.training.diffusers_host import DiffusersHost
from comfy_revelio.training.harvest import SamplingSettings

PROMPTS = ["a cat", "a dog in a hat", "ten cats"]
HOOK = "mid_block.attentions.0"
HEIGHT, WIDTH, STEPS = 32, 48, 4
GRID = (HEIGHT // 4, WIDTH // 4)  # of the middle block: the autoencoder and the UNet halve once each


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline as save_pretrained writes it."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    root = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (root / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=16, pad_token="<|endoftext|>"
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
        )
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(root / "tiny")
    return root / "tiny"


def harvest(folder: Path, out: Path, *options: str) -> ShardSet:
    settings = ["--hook-point", HOOK, "--diffusers", str(folder), "--size", f"{WIDTH}x{HEIGHT}"]
    assert main(["harvest", str(out), *settings, "--dtype", "float32", "--json", *options]) == 0
    return ShardSet(out / HOOK)


def outputs(pipe: Any, run: Any) -> list[Tensor]:
    """What the hook point outputs while `run` runs: [b, cells, width] of each call."""
    calls: list[Tensor] = []
    module = pipe.unet.get_submodule(HOOK)
    handle = module.register_forward_hook(
        lambda _m, _i, out: calls.append((out[0] if isinstance(out, tuple) else out.sample).flatten(2).mT)
    )
    with torch.no_grad():
        run()
    handle.remove()
    return calls


def load(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_prompts_are_harvested_as_the_pipeline_generates_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    steps = ["--steps", str(STEPS), "--cfg", "4", "--batch", "2"]
    prompts = ["--prompts", str(tmp_path / "prompts.txt")]
    shards = harvest(folder, tmp_path / "out", *prompts, *steps)
    cells = GRID[0] * GRID[1]
    assert (shards.source.grid, shards.source.hook_point, shards.source.model) == (GRID, HOOK, "tiny")
    assert shards.n_items == 3 and shards.n_rows == 3 * STEPS * cells
    rows = shards.split(0.0)[0].all()
    pipe = load(folder)
    for item, prompt in enumerate(PROMPTS):  # one after the other, and not two at once
        calls = outputs(
            pipe,
            lambda item=item, prompt=prompt: pipe(
                prompt,
                height=HEIGHT,
                width=WIDTH,
                num_inference_steps=STEPS,
                guidance_scale=4.0,
                generator=torch.Generator().manual_seed(item),
                output_type="latent",
            ),
        )
        mine = rows.item == item
        assert torch.allclose(rows.x[mine], torch.cat([call[1] for call in calls]), atol=1e-4)
        told = rows.timestep[mine].reshape(STEPS, cells)
        assert told[:, 0].tolist() == pipe.scheduler.timesteps.tolist()
        assert bool((told == told[:, :1]).all())
    again = harvest(folder, tmp_path / "out", *prompts, *steps)
    assert again.n_rows == shards.n_rows


def test_images_are_harvested_as_the_scheduler_noises_them(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = [np.random.default_rng(n).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8) for n in range(3)]
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text(PROMPTS[number])
    options = ["--images", str(images), "--timesteps", "25,400", "--captured", "diff", "--batch", "3"]
    shards = harvest(folder, tmp_path / "out", *options)
    assert shards.n_rows == 3 * 2 * GRID[0] * GRID[1] and shards.source.captured == "diff"
    shards = harvest(folder, tmp_path / "whole", *options[:4], "--batch", "1")
    rows = shards.split(0.0)[0].all()
    pipe = load(folder)
    for item, image in enumerate(pixels):
        x = torch.from_numpy(image).float().movedim(-1, 0)[None] / 127.5 - 1
        with torch.no_grad():
            latents = pipe.vae.encode(x).latent_dist.mode() * pipe.vae.config.scaling_factor
            text = pipe.encode_prompt(PROMPTS[item], "cpu", 1, False)[0]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(item))
        for timestep in (25, 400):
            noised = pipe.scheduler.add_noise(latents, noise, torch.tensor([timestep]))
            (call,) = outputs(
                pipe,
                lambda x=noised, t=timestep, text=text: pipe.unet(x, t, encoder_hidden_states=text),
            )
            mine = (rows.item == item) & (rows.timestep == timestep)
            assert torch.allclose(rows.x[mine], call[0], atol=1e-4)


def test_what_is_not_a_pipeline_and_what_it_lacks_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RevelioError, match=r"no model_index\.json"):
        DiffusersHost(tmp_path, SamplingSettings(32, 32))
    with pytest.raises(RevelioError, match="no module 'mid_blok'"):
        DiffusersHost(folder, SamplingSettings(32, 32)).hook_point("unet.mid_blok")
