"""Many pictures at once through ComfyUI's sampler: each row of a batch has its own prompt and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.sample
import torch


@torch.no_grad()
def encode(clip: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Prompts -> text states [n, tokens, width], as CLIPTextEncode gives them one by one.

    Prompts of one length in tokens only (up to 75 words for CLIP): their states are stacked.
    """
    return torch.cat([clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0] for prompt in prompts])


@torch.no_grad()
def sample(
    model: Any,
    positive: torch.Tensor,
    negative: torch.Tensor,
    seeds: Sequence[int],
    *,
    steps: int = 20,
    cfg: float = 3.0,
    sampler: str = "euler",
    scheduler: str = "normal",
    height: int = 128,
    width: int = 128,
) -> torch.Tensor:
    """Latents [n, 4, height/8, width/8]; row i is what KSampler makes of seed i and row i of the text states.

    positive: [n, tokens, width]; negative: [1 or n, tokens, width].
    """
    empty = torch.zeros(1, 4, height // 8, width // 8)
    noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
    if len(negative) == 1:
        negative = negative.expand(len(positive), -1, -1)
    return comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        sampler,
        scheduler,
        [[positive, {}]],
        [[negative, {}]],
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=int(seeds[0]),
    )


@torch.no_grad()
def pictures(
    model: Any,
    clip: Any,
    vae: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    negative_clip: Any = None,
    batch: int = 32,
    **settings: Any,
) -> torch.Tensor:
    """Images [n, H, W, 3] in 0..1 for each (prompt, seed), with the empty negative prompt.

    settings: as for `sample`.
    negative_clip encodes the empty prompt where steering made another CLIP for it.
    """
    negative = encode(negative_clip or clip, [""])
    images = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        latents = sample(model, encode(clip, prompts[part]), negative, seeds[part], **settings)
        images.append(vae.decode(latents).float().cpu())
    return torch.cat(images)
