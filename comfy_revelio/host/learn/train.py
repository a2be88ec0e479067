"""Train SAE: train an SAE on harvested activations and save it to models/sae, with progress and curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor

from ...analysis.name_features import name_features
from ...render.curves import training_curves
from ...training import ShardSet, preset
from ...training.config import TrainConfig
from ...training.train_on_shards import train_on_shards
from .. import sae_files
from ..sae_files import SAEHandle
from .file_names import require_file_name
from .harvest import Activations

CURVE_POINTS = 60
"""The node redraws its training curves about this many times, each time with one more point."""


def train_sae(
    activations: Activations, recipe: str, name: str, **options: Any
) -> tuple[SAEHandle, Tensor, str]:
    """Train an SAE, save it to models/sae and return (the SAE, a figure of the training curves, a report).

    ComfyUI's Interrupt stops the training and saves its state; the same settings then resume.
    """
    require_file_name(name)
    shards = ShardSet(activations.folder)
    config = preset(recipe, shards.d_model, **options)
    config = replace(config, report_every=max(1, config.steps // CURVE_POINTS))
    out = Path(folder_paths.get_folder_paths(sae_files.FOLDER)[0]) / f"{name}.safetensors"
    shown = LiveReport(config)
    metrics = train_on_shards(
        activations.folder, out, config, shown, family=activations.model, finish=name_features
    )
    sae = sae_files.load(out.name)
    report = "\n".join(
        [
            f"{out.name}: {config.n_features} features, k {config.k}, at {activations.hook_point}",
            f"explained variance {metrics['explained_variance']:.3f}, L0 {metrics['l0']:.1f}, "
            f"dead {metrics['dead_share']:.1%}, on activations held out from training",
            f"labels: {', '.join(sae.dictionary.labels) or 'none'}",
            *(
                f"timesteps {b['from']:.0f} to {b['to']:.0f}: explained variance "
                f"{b['explained_variance']:.3f}"
                for b in metrics["by_timestep"]
            ),
        ]
    )
    return sae, shown.image(), report


class LiveReport:
    """A training callback: moves the progress bar, shows the curves so far, and stops on Interrupt."""

    def __init__(self, config: TrainConfig) -> None:
        self.steps = config.steps
        self.bar = comfy.utils.ProgressBar(config.steps)
        self.series: dict[str, list[tuple[float, float]]] = {"loss": [], "dead share": []}

    def __call__(self, step: int, steps: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.series[name.replace("_", " ")].append((step, value))
        pixels = (self.image().numpy() * 255).astype(np.uint8)
        self.bar.update_absolute(step, steps, ("JPEG", Image.fromarray(pixels), 512))
        comfy.model_management.throw_exception_if_processing_interrupted()

    def image(self) -> Tensor:
        return training_curves(self.series, title="Training", last=self.steps)
