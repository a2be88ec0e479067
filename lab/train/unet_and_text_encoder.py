"""Train text encoder and UNet together: `python -m lab model --data DIR`.

The UNet predicts velocity on the autoencoder's latents. Each image has several captions, 10 % of captions are
dropped for classifier-free guidance, and the weights are averaged (exponential moving average). Words act
mainly at high noise and, for small parts, in a few cells, so these timesteps and cells weigh more. In
addition, a linear reader must recognise the attributes in the text states: without the reader, the model did
not learn to distinguish words for parts of only a few pixels (all mood words had the same effect).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn.functional import cross_entropy

from comfy_revelio.host.mini import config
from comfy_revelio.host.mini.weights import load_weights

from ..data.attributes import ATTRIBUTES, HIDDEN
from ..data.captions import caption
from ..data.dataset import as_floats, load_avatars
from .checkpoint import load_state, save_state, save_weights
from .networks import build_text_encoder, build_unet, noise_schedule
from .pace import Pace, learning_rate
from .precision import Masters
from .progress import Progress
from .tokenizer import UNKNOWN, load_tokenizer, small_vocabulary, to_small, tokenize
from .vae import VAE_FILE, load_vae, moments_of

UNET_FILE = config.WEIGHTS_DIR / "unet.safetensors"
TEXT_FILE = config.WEIGHTS_DIR / "text_encoder.safetensors"

CAPTION_DROP = 0.1
UNKNOWN_WORD = 0.15
"""The share of captions in which one word is replaced by the unknown word."""
HIGH_NOISE = 0.4
"""Timesteps are drawn as 1000 * u ** HIGH_NOISE with u uniform, so most are high. In such small latents, a
part is visible even through strong noise: on a trained model, nine tenths of the change that words make to
the prediction was measured above timestep 600."""
PART_SHARE = 0.6
"""The share of the loss that is divided evenly among the attributes instead of among the image's cells."""
MEANING_WEIGHT = 1.0
"""The weight of the loss for reading the attributes from the text states. Far below 1, it drowns in
the noise of the image loss's gradient (at 0.05, all mood words had the same effect after 50,000 images)."""


def _captions(job: tuple[np.ndarray, int, int]) -> list[str]:
    labels, wordings, seed = job
    rng = np.random.default_rng(seed)
    rows = [dict(zip(ATTRIBUTES, map(int, row), strict=True)) for row in labels]
    return [caption(row, rng).text for row in rows for _ in range(wordings)]


def caption_tokens(labels: np.ndarray, wordings: int, workers: int = 4) -> np.ndarray:
    """Write `wordings` captions per image: labels [N, attributes] -> CLIP tokens [N, wordings, 77] uint16."""
    jobs = [(part, wordings, i) for i, part in enumerate(np.array_split(labels, max(1, len(labels) // 2000)))]
    tokenizer = load_tokenizer()
    parts = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for texts in pool.map(_captions, jobs):
            parts.append(tokenize(tokenizer, texts).reshape(-1, wordings, config.CONTEXT_TOKENS))
    return np.concatenate(parts)


@torch.no_grad()
def encode_images(vae: Any, images: torch.Tensor, scale: float, device: str) -> torch.Tensor:
    """Encode uint8 images [N, 3, H, W] to mean and deviation in the UNet's units, float16 [N, 8, h, w]."""
    vae = copy.deepcopy(vae).to(torch.bfloat16)
    parts = []
    for part in images.split(64):
        moments = moments_of(vae, as_floats(part.to(device)).bfloat16()).float()
        mean, log_variance = moments.chunk(2, dim=1)
        deviation = (0.5 * log_variance.clamp(-30, 20)).exp()
        parts.append((torch.cat([mean, deviation], dim=1) * scale).half())
    return torch.cat(parts)


@torch.no_grad()
def part_weights(latents: torch.Tensor, labels: torch.Tensor, largest: float = 8.0) -> torch.Tensor:
    """Return the loss weight of every cell for each style, [styles, 1, h, w] with mean 1.

    latents: [N, >=C, h, w], the first C = 4 channels are used; labels: [N, attributes], -1 if unknown.
    The variance between the mean latents of an attribute's values shows which cells the attribute changes.
    All attributes get the same total weight: glasses on six cells count as much as a background on 150.
    """
    styles = len(ATTRIBUTES["style"])
    cells = latents.shape[-2] * latents.shape[-1]
    weights = torch.ones(styles, 1, *latents.shape[-2:])
    for style in range(styles):
        mine = labels[:, 0] == style
        images, values = latents[mine][:, : config.LATENT_CHANNELS].float().cpu(), labels[mine].cpu()
        found = [_between(images, values[:, column]) for column in range(1, labels.shape[1])]
        maps = [m / m.sum() for m in found if m is not None and m.sum() > 0]
        if maps:
            spread = (torch.stack(maps).mean(dim=0) * cells).clamp(max=largest)
            weights[style, 0] = 1 - PART_SHARE + PART_SHARE * spread / spread.mean()
    return weights.to(latents.device)


def _between(images: torch.Tensor, values: torch.Tensor, fewest: int = 20) -> torch.Tensor | None:
    """Return the variance between class means beyond chance, [h, w]; None if fewer than two classes are large
    enough (`fewest` images)."""
    groups = [images[values == v] for v in values.unique() if v >= 0]
    groups = [group for group in groups if len(group) >= fewest]
    if len(groups) < 2:
        return None
    means = torch.stack([group.mean(dim=0) for group in groups])
    chance = torch.stack([group.var(dim=0) / len(group) for group in groups]).mean(dim=0)
    return (means.var(dim=0) - 3 * chance).clamp(min=0).sum(dim=0)


class TextAndUNet(nn.Module):
    """The UNet, the text encoder and an attribute reader (needed only for training) in one module.

    (noisy latents, timesteps, tokens [B, 77], the positions [B] where captions end) -> velocity, and the
    reader's scores [B, all values of all attributes].
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text = build_text_encoder(vocabulary)
        self.unet = build_unet()
        self.reader = nn.Linear(config.TEXT["hidden_size"], sum(map(len, ATTRIBUTES.values())))
        # at these sizes, the backward pass of fused attention is slower than plain matrix products
        self.text.set_attn_implementation("eager")
        self.unet.set_attn_processor(AttnProcessor())

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor, ends: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.text(input_ids=tokens).last_hidden_state
        velocity = self.unet(latents, timesteps, encoder_hidden_states=states, return_dict=False)[0]
        position = torch.arange(tokens.shape[1], device=tokens.device)
        words = ((position > 0) & (position < ends[:, None])).to(states.dtype)[..., None]
        return velocity, self.reader((states * words).sum(dim=1) / words.sum(dim=1).clamp(min=1))


def meaning_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of scores [B, all values] and labels [B, attributes], ignoring -1."""
    parts = scores.float().split([len(values) for values in ATTRIBUTES.values()], dim=1)
    losses = [
        cross_entropy(part, labels[:, column], ignore_index=HIDDEN, reduction="sum")
        for column, part in enumerate(parts)
    ]
    return torch.stack(losses).sum() / (labels != HIDDEN).sum().clamp(min=1)


def empty_prompt(vocabulary: np.ndarray) -> np.ndarray:
    """Return the tokens [77] of the empty prompt in the small vocabulary."""
    row = np.full(config.CONTEXT_TOKENS, config.EOS_TOKEN)
    row[0] = config.BOS_TOKEN
    return to_small(row, vocabulary)


def first_end(tokens: torch.Tensor, end: int) -> torch.Tensor:
    """Return the positions [B] where the captions end: at the first end token of tokens [B, 77]."""
    return (tokens == end).int().argmax(dim=1)


def spoil_captions(tokens: torch.Tensor, empty: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Drop some captions and replace a word in others; tokens [B, 77], ends [B] from `first_end`."""
    batch = tokens.shape[0]
    tokens = tokens.clone()
    draw = torch.rand(batch, device=tokens.device)
    where = 1 + (torch.rand(batch, device=tokens.device) * (ends - 1).clamp(min=1)).long()
    rows = torch.arange(batch, device=tokens.device)
    replaced = torch.where(
        draw > 1 - UNKNOWN_WORD, torch.full_like(where, UNKNOWN).to(tokens.dtype), tokens[rows, where]
    )
    tokens[rows, where] = replaced
    return torch.where((draw < CAPTION_DROP)[:, None], empty[None], tokens)


def train(
    data: Path,
    *,
    steps: int = 4000,
    minutes: float | None = None,
    batch: int = 48,
    lr: float = 6e-4,
    average_decay: float = 0.999,
    wordings: int = 6,
    workers: int = 4,
    device: str = "cpu",
    vae_file: Path = VAE_FILE,
    unet_file: Path = UNET_FILE,
    text_file: Path = TEXT_FILE,
    go_on: bool = False,
    compiled: bool = False,
) -> dict[str, float]:
    """Train, save both weight files and return the metrics; a killed run resumes from its checkpoint.

    go_on: start from the existing weights instead of from scratch.
    compiled: let torch.compile fuse the operations; this needs a C++ compiler and two minutes, after which a
        CPU trains a quarter faster.
    minutes: if given, the number of steps is set from the measured speed so that the run takes this long.
    """
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    vae, scale = load_vae(vae_file, device)
    avatars = load_avatars(data, "model")
    latents = encode_images(vae, avatars.images, scale, device)
    labels = avatars.labels.to(device)
    cell_weights = part_weights(latents, avatars.labels)
    clip_tokens = caption_tokens(avatars.labels.numpy(), wordings, workers)
    old_text, vocabulary = load_text_encoder(text_file) if go_on else (None, small_vocabulary(clip_tokens))
    state_file, start = unet_file.with_suffix(".state"), 0
    if (state := load_state(state_file, device)) is not None:
        vocabulary = state["vocabulary"].cpu().numpy()
    small = to_small(clip_tokens, vocabulary)
    tokens = torch.from_numpy(small).to(device)
    end = int(to_small(np.array([config.EOS_TOKEN]), vocabulary)[0])
    empty = torch.from_numpy(empty_prompt(vocabulary).astype(np.int64)).to(device)
    print(
        f"model  {len(latents)} images, {wordings} wordings each, {len(vocabulary)} tokens in use", flush=True
    )

    model = TextAndUNet(len(vocabulary) + 1)
    if old_text is not None:
        model.text.load_state_dict(old_text.state_dict())
        model.unet.load_state_dict(load_unet(unet_file).state_dict())
    model = model.to(device)
    masters = Masters(model)
    alphas = noise_schedule(device)
    optimizer = torch.optim.AdamW(masters.weights, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    if state is not None:
        masters.restore(state["masters"])
        optimizer.load_state_dict(state["optimizer"])
        start, steps, minutes = state["step"], state["steps"], None

    torch.manual_seed(start)  # so that a resumed run does not draw the same rows again
    run = torch.compile(model) if compiled else model
    pace, progress = Pace(steps, minutes, device, start=start), Progress("model", steps, start=start)
    running, meaning = torch.zeros((), device=device), torch.zeros((), device=device)
    step = start
    while step < pace.steps:
        step += 1
        rate = learning_rate(lr, step, pace.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(latents), (batch,), device=device)
        mean, deviation = latents[rows].float().chunk(2, dim=1)
        clean = mean + deviation * torch.randn_like(mean)
        words = tokens[rows, torch.randint(wordings, (batch,), device=device)].long()
        words = spoil_captions(words, empty, first_end(words, end))
        t = (torch.rand(batch, device=device) ** HIGH_NOISE * len(alphas)).long().clamp(max=len(alphas) - 1)
        a = alphas[t][:, None, None, None].sqrt()
        s = (1 - alphas[t])[:, None, None, None].sqrt()
        noise = torch.randn_like(clean)
        velocity, scores = run((a * clean + s * noise).bfloat16(), t, words, first_end(words, end))
        error = (velocity.float() - (a * noise - s * clean)).pow(2)
        loss = (error * cell_weights[labels[rows, 0]]).mean()
        understood = meaning_loss(scores, labels[rows])
        (loss + MEANING_WEIGHT * understood).backward()
        masters.collect_gradients()
        optimizer.step()
        masters.publish(step, decay=average_decay)
        for mean_value, value in ((running, loss), (meaning, understood)):
            mean_value.lerp_(value.detach(), 0.02 if step > start + 50 else 0.2)
        if pace.tick(step):
            progress.total = pace.steps
        if progress.due(step):
            progress.line(step, loss=running.item(), meaning=meaning.item(), lr=rate)
        if step % 500 == 0 and step < pace.steps:
            state = {"masters": masters.state(), "optimizer": optimizer.state_dict()}
            state["vocabulary"] = torch.from_numpy(vocabulary)
            save_state({**state, "step": step, "steps": pace.steps}, state_file)
    metrics = {
        "loss": running.item(),
        "images_seen": float(pace.steps * batch),
        "images": float(len(latents)),
    }
    export(masters.averaged(), vocabulary, metrics, unet_file, text_file)
    state_file.unlink(missing_ok=True)
    return metrics


def export(
    average: dict[str, torch.Tensor],
    vocabulary: Sequence[int] | np.ndarray,
    metrics: dict[str, float],
    unet_file: Path,
    text_file: Path,
) -> None:
    """Write averaged weights: one file for the UNet, one for the text encoder and its token ids."""
    unet = {n.removeprefix("unet."): p for n, p in average.items() if n.startswith("unet.")}
    # some versions of transformers put "text_model." before every name; the file leaves it out
    text = {
        n.removeprefix("text.").removeprefix("text_model."): p
        for n, p in average.items()
        if n.startswith("text.")
    }
    text["token_ids"] = torch.from_numpy(np.asarray(vocabulary, dtype=np.int64))
    save_weights(unet, unet_file, metadata={"config": json.dumps({**config.UNET, **metrics})})
    save_weights(text, text_file, metadata={"config": json.dumps({**config.TEXT, **metrics})})


def load_text_encoder(path: Path = TEXT_FILE, device: torch.device | str = "cpu") -> tuple[Any, np.ndarray]:
    """Load the trained text encoder and the CLIP token ids of its small vocabulary."""
    tensors, _ = load_weights(path, device)
    vocabulary = tensors.pop("token_ids").cpu().numpy()
    text = build_text_encoder(len(vocabulary) + 1).to(device)
    prefix = "text_model." if any(name.startswith("text_model.") for name in text.state_dict()) else ""
    text.load_state_dict({prefix + name: value for name, value in tensors.items()})
    return text.eval().requires_grad_(False), vocabulary


def load_unet(path: Path = UNET_FILE, device: torch.device | str = "cpu") -> Any:
    """Load the trained UNet (diffusers)."""
    tensors, _ = load_weights(path, device)
    unet = build_unet().to(device)
    unet.load_state_dict(tensors)
    return unet.eval().requires_grad_(False)
