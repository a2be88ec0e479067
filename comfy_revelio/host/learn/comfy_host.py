"""A host that harvests from any MODEL, CLIP and VAE in ComfyUI."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ... import hookpoints
from ...errors import RevelioError
from ...training.harvest import CapturedRows, CaptureSpec, Item, SamplingSettings
from ...training.open_images import read_image
from ..comfy_types import Clip, Conditioning, Model, Vae
from ..record.generation import encode, encoded_batches, sample
from ..record.noising import sigma_at
from ..taps.model import network_of
from ..taps.runs import ModelCall
from .in_memory import listen


class ComfyHost:
    """Runs a ComfyUI model for `training.harvest`. name: what the manifest calls the model."""

    def __init__(
        self,
        model: Model,
        clip: Clip,
        vae: Vae | None,
        name: str,
        settings: SamplingSettings,
        *,
        sampler: str = "euler",
        scheduler: str = "normal",
    ) -> None:
        self.model, self.clip, self.vae, self.name = model, clip, vae, name
        self.sampling_settings = settings
        self.sampling: dict[str, Any] = {"sampler": sampler, "scheduler": scheduler}
        self.settings = {"host": "comfyui", **settings.manifest_fields(), **self.sampling}
        self._latents: dict[int, Tensor] = {}

    def hook_point(self, name: str) -> str:
        return hookpoints.resolve(network_of(self.model.model), name).name

    def run(self, items: Sequence[Item], wanted: CaptureSpec) -> Iterator[CapturedRows]:
        self._latents = {}
        prompts = [item.prompt for item in items]
        for rows, positive in encoded_batches(self.clip, prompts, len(items)):
            yield from self._run(items[rows], positive, wanted)

    def _run(self, items: Sequence[Item], positive: Conditioning, wanted: CaptureSpec) -> list[CapturedRows]:
        kept: list[CapturedRows] = []
        tapped = self.model
        for name in wanted.hook_points:
            tapped = self._listen(tapped, name, wanted, items, kept)
        if items[0].image is None:
            negative = encode(self.clip, [""])
            seeds = [item.seed for item in items]
            latents = sample(
                tapped, positive, negative, seeds, **asdict(self.sampling_settings), **self.sampling
            )
            self._latents |= {item.number: latent for item, latent in zip(items, latents, strict=True)}
        else:
            self._run_on_images(tapped, items, positive, wanted.timesteps)
        return kept

    def images(self, items: Sequence[Item]) -> list[Tensor]:
        """Return the last run's images (generated, or read from files), each [H, W, 3] in 0..1."""
        if items[0].image is not None:
            return [read_image(item, self.sampling_settings) for item in items]
        latents = torch.stack([self._latents[item.number] for item in items])
        if latents.ndim != 4:
            raise RevelioError("This model generates videos; labelling needs a model of still images.")
        assert self.vae is not None  # a host without a VAE is only used for harvests that need no images
        return list(self.vae.decode(latents).float().cpu())

    def _listen(
        self, model: Model, name: str, wanted: CaptureSpec, items: Sequence[Item], kept: list[CapturedRows]
    ) -> Model:
        from_images = items[0].image is not None

        def keep(tokens: Tensor, call: ModelCall) -> None:
            if not (from_images or not wanted.steps or call.step in wanted.steps):
                return
            rows = tokens.to("cpu", torch.float32, copy=True)  # copied, as later blocks may overwrite them
            *frames, height, width = call.grid
            for row, item in zip(rows, call.items, strict=True):
                # each frame of a video counts as an image
                for frame in row.unflatten(0, (math.prod(frames), height * width)):
                    kept.append(CapturedRows(name, items[item].number, call.timestep, frame, (height, width)))

        return listen(model, name, keep, captured=wanted.captured)

    def _run_on_images(
        self, model: Model, items: Sequence[Item], positive: Conditioning, timesteps: Sequence[float]
    ) -> None:
        """Noise the images to each timestep and evaluate the model, as in Revelio (arXiv 2411.16725)."""
        pixels = torch.stack([read_image(item, self.sampling_settings) for item in items])
        assert self.vae is not None
        latents = self.vae.encode(pixels)
        latents = comfy.sample.fix_empty_latent_channels(model, latents)
        noise = torch.cat(
            [comfy.sample.prepare_noise(latents[n : n + 1], item.seed) for n, item in enumerate(items)]
        )
        sampling = model.get_model_object("model_sampling")
        for timestep in timesteps:
            sigma = sigma_at(float(timestep), sampling)
            # a single Euler step from sigma to 0 evaluates the model once: on the images noised to sigma
            comfy.sample.sample_custom(
                model,
                noise,
                1.0,
                comfy.samplers.sampler_object("euler"),
                torch.tensor([sigma, 0.0]),
                positive,
                positive,
                latents,
                disable_pbar=True,
                seed=items[0].seed,
            )
