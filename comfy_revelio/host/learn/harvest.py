"""Harvest Activations: generate images from prompts and save a hook point's activations at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths

from ...errors import RevelioError
from ...training import ShardSet
from ...training.harvest import CaptureSpec, SamplingSettings, harvest, items_of_prompts
from ..comfy_types import Clip, Model
from .comfy_host import ComfyHost
from .file_names import require_file_name

FOLDER = "revelio_activations"
"""The subfolder of ComfyUI's output folder for all harvests."""


@dataclass(frozen=True)
class Activations:
    """Harvested activations on disk: the value of a REVELIO_ACTIVATIONS socket."""

    folder: Path
    """The folder that contains the shards."""
    hook_point: str
    model: str
    """The name that the user chose for the harvest."""

    @property
    def about(self) -> str:
        shards = ShardSet(self.folder)
        return (
            f"{shards.n_rows:,} activations of {self.hook_point}, {shards.d_model} wide, "
            f"from {shards.n_items} images, in {self.folder}"
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
    """Generate `pictures` images, cycling through the prompts, and save the hook point's activations.

    The same name and settings resume an interrupted harvest; other settings get a separate folder.
    """
    if not prompts:
        raise RevelioError("There are no prompts; write some, one per line.")
    require_file_name(name)
    settings = SamplingSettings(height, width, steps, cfg)
    host = ComfyHost(model, clip, None, name, settings, sampler=sampler, scheduler=scheduler)
    items = items_of_prompts(prompts, seed, pictures)
    # the folder's name depends on all settings, so the same settings resume an interrupted harvest
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
