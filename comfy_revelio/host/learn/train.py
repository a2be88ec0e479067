"""Learning in ComfyUI: harvest a model, train an SAE, make concept vectors; with progress and Interrupt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor

from ... import hookpoints
from ...analysis.name_features import name_features
from ...dictionary.concept_vectors import concept_vectors
from ...errors import RevelioError
from ...render.curves import curves
from ...training import ShardSet, preset
from ...training.config import TrainConfig
from ...training.harvest import CaptureSpec, SamplingSettings, harvest, items_of_prompts
from ...training.train_on_shards import train_on_shards
from .. import sae_files
from ..comfy_types import Clip, Model
from ..record.prompts import sample_in_parts
from ..sae_files import SAEHandle
from ..taps.model import network_of
from . import harvest as in_memory
from .comfy_host import ComfyHost

FOLDER = "revelio_activations"
_NAME = re.compile(r"[\w\- ]{1,80}")


@dataclass(frozen=True)
class Activations:
    """What a REVELIO_ACTIVATIONS socket carries: a folder of shards, and what it is of."""

    folder: Path
    hook_point: str
    model: str

    @property
    def about(self) -> str:
        shards = ShardSet(self.folder)
        return (
            f"{shards.n_rows:,} activations of {self.hook_point}, {shards.d_model} wide, "
            f"from {shards.n_items} pictures, in {self.folder}"
        )


def harvest_prompts(
    model: Model,
    clip: Clip,
    prompts: Sequence[str],
    hook_point: str,
    *,
    pictures: int,
    seed: int,
    name: str,
    height: int,
    width: int,
    steps: int,
    cfg: float,
    sampler: str,
    scheduler: str,
) -> Activations:
    """Draw pictures of the prompts in turn and keep what the hook point puts out, in the output folder.

    A harvest of the same name and settings that was stopped goes on; one with others lies beside it.
    """
    if not prompts:
        raise RevelioError("There are no prompts to draw; write some, one a line.")
    _check_name(name)
    drawing = SamplingSettings(height, width, steps, cfg)
    host = ComfyHost(model, clip, None, name, drawing, sampler=sampler, scheduler=scheduler)
    items = items_of_prompts([prompts[number % len(prompts)] for number in range(pictures)], seed)
    # the same settings lead to the same folder, so that a stopped harvest is found again
    words = repr((sorted(host.settings.items()), list(prompts), seed))
    mark = hashlib.sha256(words.encode()).hexdigest()[:8]
    out = Path(folder_paths.get_output_directory()) / FOLDER / f"{name}_{mark}"
    bar = comfy.utils.ProgressBar(len(items))

    def progress(done: int, count: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, count)

    folders = harvest(host, items, out, CaptureSpec((hook_point,)), progress=progress)
    ((plain, folder),) = folders.items()
    return Activations(folder, plain, name)


def train_sae(
    activations: Activations, recipe: str, name: str, **options: Any
) -> tuple[SAEHandle, Tensor, str]:
    """Train on harvested activations, save into models/sae: the SAE, the picture of its training, a report.

    Interrupt saves and stops; the same settings go on from there.
    """
    _check_name(name)
    shards = ShardSet(activations.folder)
    config = preset(recipe, shards.d_model, **options)
    config = replace(config, report_every=max(1, config.steps // 60))  # often enough for a smooth curve
    out = Path(folder_paths.get_folder_paths(sae_files.FOLDER)[0]) / f"{name}.safetensors"
    shown = Live(config)
    figures = train_on_shards(
        activations.folder, out, config, shown, family=activations.model, finish=name_features
    )
    sae = sae_files.load(out.name)
    report = "\n".join(
        [
            f"{out.name}: {config.n_features} features, k {config.k}, at {activations.hook_point}",
            f"explained variance {figures['explained_variance']:.3f}, L0 {figures['l0']:.1f}, "
            f"dead {figures['dead_share']:.1%}, on activations that it was not trained on",
            f"labels: {', '.join(sae.dictionary.labels) or 'none'}",
            *(
                f"timesteps {b['from']:.0f} to {b['to']:.0f}: explained variance "
                f"{b['explained_variance']:.3f}"
                for b in figures["by_timestep"]
            ),
        ]
    )
    return sae, shown.picture(), report


class Live:
    """Called during training: progress bar, the curves so far as its preview, and Interrupt."""

    def __init__(self, config: TrainConfig) -> None:
        self.steps = config.steps
        self.bar = comfy.utils.ProgressBar(config.steps)
        self.series: dict[str, list[tuple[float, float]]] = {"loss": [], "dead share": []}

    def __call__(self, step: int, steps: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.series[name.replace("_", " ")].append((step, value))
        pixels = (self.picture().numpy() * 255).astype(np.uint8)
        self.bar.update_absolute(step, steps, ("JPEG", Image.fromarray(pixels), 512))
        comfy.model_management.throw_exception_if_processing_interrupted()

    def picture(self) -> Tensor:
        return curves(self.series, title="Training", last=self.steps)


def vector_of_prompts(
    model: Model,
    clip: Clip,
    hook_point: str,
    label: str,
    with_it: Sequence[str],
    without: Sequence[str],
    *,
    seed: int,
    height: int,
    width: int,
    steps: int,
    cfg: float,
) -> SAEHandle:
    """A dictionary of one feature: the difference of means between two lists of prompts, same seeds."""
    if not with_it or not without:
        raise RevelioError(
            "A concept vector needs prompts with the concept and prompts without it, one a line."
        )
    plain = hookpoints.resolve(network_of(model.model), hook_point).name
    bar = comfy.utils.ProgressBar(len(with_it) + len(without))
    settings: dict[str, Any] = {"steps": steps, "cfg": cfg, "height": height, "width": width}
    sides: list[Tensor] = []
    for prompts in (with_it, without):

        def generate(tapped: Model, prompts: Sequence[str] = prompts) -> None:
            for latents in sample_in_parts(tapped, clip, prompts, seed, **settings):
                bar.update(len(latents))

        maps = in_memory.harvest(model, [plain], generate)[plain]
        sides.append(maps.flatten(0, -2).float())
    dictionary = concept_vectors({label.strip() or "concept": (sides[0], sides[1])}, hook_point=plain)
    return sae_files.handle(dictionary, f"{label.strip() or 'concept'} vector")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RevelioError(
            f"{name!r} cannot be the name of a file; use letters, digits, spaces, - and _, at most 80."
        )
