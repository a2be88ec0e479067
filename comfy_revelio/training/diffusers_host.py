"""A host that harvests from a diffusers pipeline folder, for machines without ComfyUI.

Hook points are named as in the papers, by their module paths in diffusers. The hook points in ComfyUI have
these names as aliases, so a dictionary trained on a diffusers pipeline can be used in ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import RevelioError
from .harvest import CapturedRows, CaptureSpec, Item, SamplingSettings
from .open_images import read_image


class DiffusersHost:
    """Runs the UNet of a Stable Diffusion pipeline folder (SD 1.x, 2.x, XL). Nothing is downloaded."""

    def __init__(self, folder: Path, settings: SamplingSettings) -> None:
        from diffusers import DiffusionPipeline

        device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
        if not (folder / "model_index.json").is_file():
            raise RevelioError(f"{folder} is not a diffusers pipeline folder: it has no model_index.json.")
        try:
            self.pipe: Any = DiffusionPipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).to(device, dtype)
        except (OSError, ValueError) as error:
            raise RevelioError(f"{folder} cannot be loaded as a pipeline: {error}") from None
        if not hasattr(self.pipe, "unet"):
            raise RevelioError(f"{folder} has no UNet; only UNet pipelines can be harvested this way.")
        self.pipe.set_progress_bar_config(disable=True)
        self.name = folder.resolve().name
        self.sampling_settings = settings
        self.settings = {
            "host": "diffusers",
            **settings.manifest_fields(),
            "scheduler": type(self.pipe.scheduler).__name__,
        }

    def hook_point(self, name: str) -> str:
        plain = name.strip().removeprefix("unet.")
        try:
            self.pipe.unet.get_submodule(plain)
        except AttributeError:
            raise RevelioError(
                f"The UNet of {self.name} has no module {plain!r}; give a module path of diffusers, such as "
                "mid_block.attentions.0."
            ) from None
        return plain

    def run(self, items: Sequence[Item], spec: CaptureSpec, /) -> Iterator[CapturedRows]:
        with RecordedModules(self.pipe.unet, spec) as recorded:
            if items[0].image is None:
                self._generate(items)
            else:
                self._run_on_images(items, spec.timesteps)
        for call in recorded.calls:
            if items[0].image is None and spec.steps and call.step not in spec.steps:
                continue
            # with guidance, the first half of the batch is for the negative prompts
            for item, rows in zip(items, call.tokens[-len(items) :], strict=True):
                yield CapturedRows(call.hook_point, item.number, call.timestep, rows, call.grid)

    def _generate(self, items: Sequence[Item]) -> None:
        self.pipe(
            prompt=[item.prompt for item in items],
            height=self.sampling_settings.height,
            width=self.sampling_settings.width,
            num_inference_steps=self.sampling_settings.steps,
            guidance_scale=self.sampling_settings.cfg,
            generator=[torch.Generator().manual_seed(item.seed) for item in items],
            output_type="latent",
        )

    @torch.no_grad()
    def _run_on_images(self, items: Sequence[Item], timesteps: Sequence[float]) -> None:
        """Noise the images to each timestep and evaluate the UNet, as in Revelio (arXiv 2411.16725)."""
        unet, vae, scheduler = self.pipe.unet, self.pipe.vae, self.pipe.scheduler
        pixels = torch.stack([read_image(item, self.sampling_settings) for item in items])
        pixels = (pixels.movedim(-1, 1) * 2 - 1).to(vae.device, vae.dtype)
        latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
        noise = torch.cat(
            [
                torch.randn((1, *latents.shape[1:]), generator=torch.Generator().manual_seed(item.seed))
                for item in items
            ]
        ).to(latents)
        encoded = self.pipe.encode_prompt(
            prompt=[item.prompt for item in items],
            device=unet.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        if len(encoded) > 2:
            raise RevelioError(
                "Only SD 1.x and 2.x pipelines can be harvested on images; for SDXL use ComfyUI as the host."
            )
        alphas = scheduler.alphas_cumprod.to(latents.device)
        for timestep in timesteps:
            kept = alphas[int(timestep)]
            noised = kept.sqrt() * latents + (1 - kept).sqrt() * noise
            unet(noised.to(unet.dtype), int(timestep), encoder_hidden_states=encoded[0])


class RecordedCall(NamedTuple):
    """The activations of one module in one evaluation of the UNet."""

    hook_point: str
    step: int
    """Index of the UNet evaluation, from 0."""
    timestep: float
    tokens: Tensor
    """float32 [B, n, d] on the CPU."""
    grid: tuple[int, int]


class RecordedModules:
    """A context manager that records, with forward hooks, the outputs of a UNet's modules given by a spec."""

    def __init__(self, unet: nn.Module, spec: CaptureSpec) -> None:
        self.unet, self.spec = unet, spec
        self.calls: list[RecordedCall] = []
        self._timestep, self._step = 0.0, -1
        self._handles: list[Any] = []

    def __enter__(self) -> RecordedModules:
        self._handles.append(self.unet.register_forward_pre_hook(self._begin, with_kwargs=True))
        for name in self.spec.hook_points:
            self._handles.append(
                self.unet.get_submodule(name).register_forward_hook(self._recorder(name), with_kwargs=True)
            )
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        self._timestep, self._step = float(torch.as_tensor(timestep).flatten()[0]), self._step + 1

    def _recorder(self, name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            found = output if isinstance(output, Tensor) else output[0]
            if found.ndim != 4:
                raise RevelioError(f"{name} does not output a map of tokens; choose a block or attentions.")
            found = found.float()
            if self.spec.captured == "diff":
                before = args[0] if args else kwargs["hidden_states"]
                if before.shape != found.shape:
                    raise RevelioError(f"{name} has no diff: its input and output differ in shape.")
                found = found - before.float()
            grid = (found.shape[2], found.shape[3])
            tokens = found.flatten(2).transpose(1, 2).cpu()
            self.calls.append(RecordedCall(name, self._step, self._timestep, tokens, grid))

        return hook
