"""Train the autoencoder on avatars: `python -m lab vae --data DIR`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from comfy_revelio.host.mini import config
from comfy_revelio.host.mini.weights import load_weights

from ..data.dataset import Avatars, as_floats, load_avatars
from .checkpoint import load_state, save_state, save_weights
from .networks import build_vae
from .pace import Pace, learning_rate
from .precision import Masters
from .progress import Progress

VAE_FILE = config.WEIGHTS_DIR / "vae.safetensors"

KL_WEIGHT = 1e-4
EDGE_WEIGHT = 1.0


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the differences between neighbouring pixels, vertical and horizontal."""
    return x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]


def reconstruction_loss(decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of the pixels plus that of their edges at two resolutions."""
    loss = (decoded - images).abs().mean()
    for scale in (1, 2):
        a = decoded if scale == 1 else F.avg_pool2d(decoded, scale)
        b = images if scale == 1 else F.avg_pool2d(images, scale)
        for x, y in zip(edges(a), edges(b), strict=True):
            loss = loss + EDGE_WEIGHT * (x - y).abs().mean()
    return loss


def sample_posterior(moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw latents [B, 4, h, w] from moments [B, 8, h, w]; also return the mean KL per value from N(0, 1)."""
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean), kl


def moments_of(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Encode images [B, 3, H, W] in -1..1 to mean and log-variance [B, 8, h, w]."""
    return vae.quant_conv(vae.encoder(F.pixel_unshuffle(images, config.VAE["patch"])))


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents [B, 4, h, w] to images [B, 3, 8h, 8w] in about -1..1."""
    return F.pixel_shuffle(vae.decoder(vae.post_quant_conv(latents)), config.VAE["patch"])


def psnr(vae: Any, avatars: Avatars, device: str, count: int = 512) -> float:
    """Return the peak signal-to-noise ratio, in dB, of reconstructions from the posterior mean."""
    errors = []
    with torch.no_grad():
        for images in avatars.images[:count].split(64):
            x = as_floats(images.to(device))
            y = decode(vae, moments_of(vae, x).chunk(2, dim=1)[0]).clamp(-1, 1)
            errors.append(((x - y) / 2).pow(2).mean(dim=(1, 2, 3)))
    return float(-10 * torch.cat(errors).mean().log10())


def latent_scale(vae: Any, avatars: Avatars, device: str, count: int = 4096) -> float:
    """Return 1 / standard deviation of the latents: the factor that gives the UNet's inputs unit variance."""
    with torch.no_grad():
        z = [
            moments_of(vae, as_floats(images.to(device))).chunk(2, dim=1)[0].flatten()
            for images in avatars.images[:count].split(128)
        ]
    return float(1 / torch.cat(z).std())


def train(
    data: Path,
    held_out: Path,
    *,
    steps: int = 20_000,
    minutes: float | None = None,
    batch: int = 8,
    lr: float = 1e-3,
    crops: float = 0.6,
    device: str = "cpu",
    out: Path = VAE_FILE,
    go_on: bool = False,
) -> dict[str, float]:
    """Train the autoencoder, save it to `out` and return its metrics; a killed run resumes.

    crops: the first share of the run, which trains on quarter-size crops in batches four times as large; the
    rest of the run uses whole images.
    go_on: start from the weights at `out` and train only the decoder, so that a UNet
    trained on the encoder's latents still fits.
    """
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    images = load_avatars(data, "model").images.to(device)
    check = load_avatars(held_out, "check", limit=2048)
    vae, scale = build_vae(), None
    if go_on:
        vae, scale = load_vae(out)
        vae.requires_grad_(True)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    vae = vae.to(device)
    begun = {name: value.clone() for name, value in vae.state_dict().items()}
    masters = Masters(vae)
    optimizer = torch.optim.AdamW(masters.weights, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    state_file, start = out.with_suffix(".state"), 0
    if (state := load_state(state_file, device)) is not None:
        masters.restore(state["masters"])
        optimizer.load_state_dict(state["optimizer"])
        start, steps, minutes = state["step"], state["steps"], None
    torch.manual_seed(start)  # so that a resumed run does not draw the same rows again
    pace, progress = Pace(steps, minutes, device, start=start), Progress("vae", steps, start=start)
    step = start
    while step < pace.steps:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(lr, step, pace.steps)
        cropped = step < crops * pace.steps
        x = draw(images, batch * 4 if cropped else batch, crop=config.IMAGE_SIZE // 2 if cropped else None)
        z, kl = sample_posterior(moments_of(vae, x.bfloat16()).float())
        loss = reconstruction_loss(decode(vae, z.bfloat16()).float(), x) + KL_WEIGHT * kl
        loss.backward()
        masters.collect_gradients()
        optimizer.step()
        masters.publish(step, decay=0.998)
        if pace.tick(step):
            progress.total = pace.steps
        if progress.due(step):
            progress.line(step, loss=loss.item(), kl=kl.item())
        if step % 1000 == 0 and step < pace.steps:
            state = {"masters": masters.state(), "optimizer": optimizer.state_dict()}
            save_state({**state, "step": step, "steps": pace.steps}, state_file)
    vae = vae.float()
    vae.load_state_dict({**begun, **masters.averaged()})
    metrics = {
        "psnr_db": psnr(vae, check, device),
        "latent_scale": scale or latent_scale(vae, check, device),
        "steps": pace.steps,
    }
    save_weights(vae.state_dict(), out, metadata={"config": json.dumps({**config.VAE, **metrics})})
    state_file.unlink(missing_ok=True)
    return metrics


def draw(images: torch.Tensor, batch: int, *, crop: int | None) -> torch.Tensor:
    """Draw a random batch [batch, 3, h, w] in -1..1; `crop` cuts the same random square out of all images.

    Squares start at multiples of the latent cell's size, so that they are aligned with the encoder's grid.
    """
    rows = torch.randint(len(images), (batch,), device=images.device)
    if crop is None:
        return as_floats(images[rows])
    cells = (images.shape[-1] - crop) // config.LATENT_SCALE
    y, x = (torch.randint(cells + 1, (2,)) * config.LATENT_SCALE).tolist()
    return as_floats(images[rows, :, y : y + crop, x : x + crop])


def load_vae(path: Path = VAE_FILE, device: torch.device | str = "cpu") -> tuple[Any, float]:
    """Load the trained autoencoder and its latent scale, by which latents are multiplied for the UNet."""
    tensors, metadata = load_weights(path, device)
    vae = build_vae().to(device)
    vae.load_state_dict(tensors)
    return vae.eval().requires_grad_(False), float(json.loads(metadata["config"])["latent_scale"])
