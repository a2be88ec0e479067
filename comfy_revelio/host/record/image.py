"""Record Image: noise a real image to given timesteps; run the model once at each (arXiv 2411.16725)."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...errors import RevelioError
from ...render.input_images import checked_batch
from ...trace import Frame, RunRecorder, Trace
from ..comfy_types import Conditioning, Image, Model, Vae
from ..sae_files import SAEHandle
from ..taps.model import resolve, tap
from ..taps.runs import ModelCall, Run
from .noising import sigma_at

PoolingChoice = Literal["auto", "token", "spatial_mean"]
POOLINGS: tuple[PoolingChoice, ...] = get_args(PoolingChoice)
LAST_TIMESTEP = 999
MOST_TIMESTEPS = 64


def record_image(
    model: Model,
    vae: Vae,
    sae: SAEHandle,
    image: Image,
    positive: Conditioning,
    timesteps: str,
    *,
    hook_point: str = "",
    pooling: str = "auto",
    seed: int = 0,
) -> Trace:
    """Record the features that fire while the model processes `image` [B, H, W, 3] at each timestep.

    The VAE encodes the image, which is noised to each timestep (0 to 999, as in "25, 100, 200") with the
    noise of `seed`. Each noised image passes through the model once with the prompt `positive`. The trace has
    one step per timestep, the noisiest first, and the role "cond".
    pooling: "token" encodes each token; "spatial_mean" encodes the mean over all tokens, on which the paper's
    SAEs were trained; "auto" is the setting in the SAE's file.
    Raises RevelioError for timesteps out of range, or an SAE, VAE and model that do not fit together.
    """
    if pooling not in POOLINGS:
        raise RevelioError(f"Unknown pooling {pooling!r}; choose one of {', '.join(POOLINGS)}.")
    dictionary = sae.dictionary
    times = parse_timesteps(timesteps)
    point = resolve(model, hook_point.strip() or dictionary.hook_point, dictionary.d_model, sae.title)
    recorder = RunRecorder(len(times), sigmas_of(model, times).tolist())
    pooled = (dictionary.pooling if pooling == "auto" else pooling) == "spatial_mean"

    def see(tokens: Tensor, call: ModelCall, _run: Run) -> None:
        tokens = tokens.to(dictionary.W_enc.device).float()
        grid = call.grid
        if pooled:
            tokens, grid = tokens.mean(1, keepdim=True), (1, 1)
        codes = dictionary.encode(tokens, timestep=call.timestep)
        recorder.add(
            Frame(point.name, call.step, call.evaluation, call.sigma, call.timestep, call.role, grid, codes)
        )

    tapped = tap(model, point, see, captured=dictionary.captured, weights=sae.patcher)
    show_image(tapped, vae, image, positive, times, seed)
    return recorder.finish({point.name: dictionary}, {point.name: point.aliases})


def sigmas_of(model: Model, times: list[float]) -> Tensor:
    """Return the sigma of each timestep, followed by 0 as in a sampler's schedule: [timesteps + 1]."""
    sampling = model.get_model_object("model_sampling")
    return torch.tensor([*(sigma_at(time, sampling) for time in times), 0.0])


def show_image(
    model: Model, vae: Vae, image: Image, positive: Conditioning, times: list[float], seed: int
) -> Tensor:
    """Run the model on `image` [B, H, W, 3] noised to each timestep; return the latent of the image.

    Raises RevelioError for another model's VAE and for an image that is too small or has a wrong shape.
    """
    checked_batch(image, "image")
    compression = getattr(vae, "spacial_compression_encode", None)  # VAEs of other packs may lack this method
    least = 1 if compression is None else int(compression())
    if min(image.shape[1:3]) < least:
        raise RevelioError(
            f"The image is {image.shape[2]} x {image.shape[1]} pixels, too small for this VAE; use an "
            f"image of at least {least} x {least}."
        )
    latent = comfy.sample.fix_empty_latent_channels(model, vae.encode(image[..., :3]))
    _check_latent(model, latent)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    guider.set_cfg(1.0)
    noise = comfy.sample.prepare_noise(latent, seed)
    sigmas = sigmas_of(model, times)
    return guider.sample(noise, latent, OneForwardPassEach(), sigmas, disable_pbar=True, seed=seed)


class OneForwardPassEach(comfy.samplers.Sampler):
    """A sampler that runs the model once per sigma on the noised latent and returns the latent unchanged."""

    def sample(  # type: ignore[override, unused-ignore]
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Run the model once per sigma; ComfyUI calls this method as it calls that of its own samplers."""
        sampling = model_wrap.inner_model.model_sampling
        bar = comfy.utils.ProgressBar(len(sigmas) - 1)
        for sigma in sigmas[:-1]:
            comfy.model_management.throw_exception_if_processing_interrupted()
            noised = sampling.noise_scaling(sigma, noise, latent_image, False)
            model_wrap(noised, sigma * noised.new_ones(len(noised)), **extra_args)
            bar.update(1)
        return latent_image


def parse_timesteps(text: str) -> list[float]:
    """Return the timesteps written in `text`, such as "25, 100, 200": without repeats, the largest first."""
    times: set[float] = set()
    for part in text.replace(";", ",").replace("\n", ",").split(","):
        if not part.strip():
            continue
        try:
            time = float(part)
        except ValueError:
            time = math.nan
        if not 0 <= time <= LAST_TIMESTEP:
            raise RevelioError(
                f"{part.strip()!r} is not a timestep; write numbers from 0 (clean) to {LAST_TIMESTEP} "
                "(noise), such as 25, 100, 200."
            )
        times.add(time)
    if not 1 <= len(times) <= MOST_TIMESTEPS:
        raise RevelioError(f"Write 1 to {MOST_TIMESTEPS} timesteps, such as 25, 100, 200; got {len(times)}.")
    return sorted(times, reverse=True)


def _check_latent(model: Model, latent: Tensor) -> None:
    wanted = model.get_model_object("latent_format").latent_channels
    if latent.shape[1] != wanted:
        raise RevelioError(
            f"This VAE makes latents of {latent.shape[1]} channels, but the model takes {wanted}; connect "
            "the model's own VAE."
        )
