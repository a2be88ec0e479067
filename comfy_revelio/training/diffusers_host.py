"""A diffusers pipeline folder as a host for harvesting, for machines without ComfyUI.

Modules are named by the papers' aliases, which are diffusers' own paths, so a dictionary trained here fits
the same place in ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RevelioError
from .harvest import CapturedRows, CaptureSpec, Item, SamplingSettings, read_image


class DiffusersHost:
    """Runs the UNet of a Stable Diffusion pipeline folder (SD 1.x, 2.x, XL). Nothing is downloaded."""

    def __init__(
        self,
        folder: Path,
        drawing: SamplingSettings,
        *,
        device: str = "",
        dtype: torch.dtype | None = None,
    ) -> None:
        from diffusers import DiffusionPipeline

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or (torch.float16 if device != "cpu" else torch.float32)
        if not (folder / "model_index.json").is_file():
            raise RevelioError(f"{folder} is no diffusers pipeline folder: it has no model_index.json.")
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
        self.drawing = drawing
        self.settings = {
            "host": "diffusers",
            **drawing.manifest_fields(),
            "scheduler": type(self.pipe.scheduler).__name__,
        }

    def hook_point(self, name: str) -> str:
        plain = name.strip().removeprefix("unet.")
        self._module(plain)
        return plain

    def run(self, items: Sequence[Item], wanted: CaptureSpec) -> Iterator[CapturedRows]:
        with Listening(self.pipe.unet, wanted) as heard:
            if items[0].image is None:
                self._generate(items)
            else:
                self._look_at(items, wanted.timesteps)
        for name, step, timestep, tokens, grid in heard.calls:
            if items[0].image is None and wanted.steps and step not in wanted.steps:
                continue
            # with guidance the batch is the negative prompt's half, then the positive one's
            for item, rows in zip(items, tokens[-len(items) :], strict=True):
                yield CapturedRows(name, item.number, timestep, rows, grid)

    def _module(self, path: str) -> nn.Module:
        try:
            return self.pipe.unet.get_submodule(path)
        except AttributeError:
            raise RevelioError(
                f"The UNet of {self.name} has no module {path!r}; name one as diffusers does, such as "
                "mid_block.attentions.0."
            ) from None

    def _generate(self, items: Sequence[Item]) -> None:
        self.pipe(
            prompt=[item.prompt for item in items],
            height=self.drawing.height,
            width=self.drawing.width,
            num_inference_steps=self.drawing.steps,
            guidance_scale=self.drawing.cfg,
            generator=[torch.Generator().manual_seed(item.seed) for item in items],
            output_type="latent",
        )

    @torch.no_grad()
    def _look_at(self, items: Sequence[Item], timesteps: Sequence[float]) -> None:
        """One evaluation for each timestep of the pictures, noised to it: the way of Revelio."""
        unet, vae, scheduler = self.pipe.unet, self.pipe.vae, self.pipe.scheduler
        pixels = torch.stack([read_image(item, self.drawing) for item in items])
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
                "Pictures can be harvested from SD 1.x and 2.x pipelines; for SDXL use ComfyUI as the host."
            )
        alphas = scheduler.alphas_cumprod.to(latents.device)
        for timestep in timesteps:
            kept = alphas[int(timestep)]
            noised = kept.sqrt() * latents + (1 - kept).sqrt() * noise
            unet(noised.to(unet.dtype), int(timestep), encoder_hidden_states=encoded[0])


class Listening:
    """Forward hooks on some modules of a UNet for as long as a `with` block runs.

    calls: (hook point, call number, timestep, tokens float32 [B, n, d] on the CPU, grid) in order.
    """

    def __init__(self, unet: nn.Module, wanted: CaptureSpec) -> None:
        self.unet, self.wanted = unet, wanted
        self.calls: list[tuple[str, int, float, Tensor, tuple[int, int]]] = []
        self._timestep, self._step = 0.0, -1
        self._handles: list[Any] = []

    def __enter__(self) -> Listening:
        self._handles.append(self.unet.register_forward_pre_hook(self._begin, with_kwargs=True))
        for name in self.wanted.hook_points:
            self._handles.append(
                self.unet.get_submodule(name).register_forward_hook(self._heard(name), with_kwargs=True)
            )
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        self._timestep, self._step = float(torch.as_tensor(timestep).flatten()[0]), self._step + 1

    def _heard(self, name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            found = output if isinstance(output, Tensor) else output[0]
            if found.ndim != 4:
                raise RevelioError(f"{name} puts out no map of tokens; name a block or its attentions.")
            found = found.float()
            if self.wanted.captured == "diff":
                taken = args[0] if args else kwargs["hidden_states"]
                if taken.shape != found.shape:
                    raise RevelioError(f"The input of {name} has another shape than its output.")
                found = found - taken.float()
            grid = (found.shape[2], found.shape[3])
            tokens = found.flatten(2).transpose(1, 2).cpu()
            self.calls.append((name, self._step, self._timestep, tokens, grid))

        return hook
