"""Sample batches in which each row has its own prompt and seed, with ComfyUI's sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.sample
import torch

from ...errors import RevelioError
from ..comfy_types import Clip, Conditioning, Model, Vae

PIXELS = 8
"""Height and width of one latent cell in image pixels, for nearly all model families."""
OTHER_PIXELS = {
    "ChromaRadiance": 1,
    "SC_B": 4,
    "SC_Prior": 42,
    "SD_X4": 4,
    "Flux2": 16,
    "HunyuanImage21": 32,
    "HunyuanVideo15": 16,
    "LTXV": 32,
    "Wan22": 16,
}
"""Exceptions to PIXELS by latent format class: some ComfyUI versions lack `spacial_downscale_ratio`."""


def encode(clip: Clip, prompts: Sequence[str]) -> Conditioning:
    """Return one conditioning with a row for each prompt, encoded as CLIP Text Encode does.

    Raises RevelioError for prompts whose states differ in length and so cannot be stacked.
    """
    batches = [conditioning for _, conditioning in encoded_batches(clip, prompts, len(prompts))]
    if len(batches) != 1:
        raise RevelioError("These prompts differ in length in this text encoder; encode them one by one.")
    return batches[0]


def encoded_batches(clip: Clip, prompts: Sequence[str], size: int) -> Iterator[tuple[slice, Conditioning]]:
    """Yield (slice of `prompts`, conditioning) for groups of at most `size` prompts that can be stacked.

    CLIP pads all prompts of up to 75 tokens to the same length; other text encoders may not.
    """
    rows: list[Conditioning] = []
    for number, prompt in enumerate(prompts):
        row = _encoded(clip, prompt)
        if rows and (len(rows) == size or _shape(row) != _shape(rows[0])):
            yield slice(number - len(rows), number), _stacked(rows)
            rows = []
        rows.append(row)
    if rows:
        yield slice(len(prompts) - len(rows), len(prompts)), _stacked(rows)


@torch.no_grad()
def _encoded(clip: Clip, prompt: str) -> Conditioning:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))


def _shape(conditioning: Conditioning) -> list[Any]:
    """Return the conditioning's shape, which two conditionings share if they can be stacked."""
    return [
        (states.shape[1:], {k: v.shape[1:] if torch.is_tensor(v) else v for k, v in more.items()})
        for states, more in conditioning
    ]


def _stacked(rows: Sequence[Conditioning]) -> Conditioning:
    def stacked(values: Sequence[Any]) -> Any:
        return torch.cat(list(values)) if torch.is_tensor(values[0]) else values[0]

    return [
        [stacked([e[0] for e in entries]), {k: stacked([e[1][k] for e in entries]) for k in entries[0][1]}]
        for entries in zip(*rows, strict=True)
    ]


@torch.no_grad()
def sample(
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    seeds: Sequence[int],
    *,
    steps: int = 20,
    cfg: float = 3.0,
    sampler: str = "euler",
    scheduler: str = "normal",
    height: int = 128,
    width: int = 128,
    latents: torch.Tensor | None = None,
    noise_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return latents [n, C, h, w]; row i is KSampler's result for seeds[i] and row i of each conditioning.

    positive has n rows, negative 1 or n. height, width: image size in pixels. The given `latents` stay
    unchanged where noise_mask [1, H, W] is 0, as after Set Latent Noise Mask.
    """
    empty = empty_latent(model, height, width)
    noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
    return comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        sampler,
        scheduler,
        positive,
        negative,
        torch.zeros_like(noise) if latents is None else latents,
        noise_mask=noise_mask,
        disable_pbar=True,
        seed=int(seeds[0]),
    )


def pixels_per_cell(model: Model) -> int:
    """Return the height and width of a cell of the model's latents, in image pixels."""
    latents = model.get_model_object("latent_format")
    ratio = getattr(latents, "spacial_downscale_ratio", PIXELS)
    return OTHER_PIXELS.get(type(latents).__name__, int(ratio))


def empty_latent(model: Model, height: int, width: int) -> torch.Tensor:
    """Return an empty latent of the model for one image of height x width pixels."""
    scale = pixels_per_cell(model)
    return comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, 4, height // scale, width // scale))


@torch.no_grad()
def generate_images(
    model: Model,
    clip: Clip,
    vae: Vae,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    negative_clip: Clip | None = None,
    batch: int = 32,
    **settings: Any,
) -> torch.Tensor:
    """Return images [n, H, W, 3] in 0..1; image i is generated from prompt i and seed i.

    The negative prompt is empty. negative_clip: the CLIP for the negative prompt, if steering returned one.
    settings: keyword arguments of `sample`.
    """
    negative = encode(negative_clip or clip, [""])
    images = []
    for part, positive in encoded_batches(clip, prompts, batch):
        latents = sample(model, positive, negative, seeds[part], **settings)
        images.append(vae.decode(latents).float().cpu())
    return torch.cat(images)
