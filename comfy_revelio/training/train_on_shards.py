"""Turn harvested activations into a finished dictionary file: train, measure on held-out items, save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..dictionary import Dictionary, save_dictionary
from ..errors import RevelioError
from ..files import tensor_file
from .config import TrainConfig
from .metrics import feature_stats, measure_by_timestep
from .processes import join_processes
from .shards import ShardSet
from .trainer import Progress, train

METRIC_ROWS = 65_536
"""Maximum number of held-out rows to measure on."""


def train_on_shards(
    data: Path,
    out: Path,
    config: TrainConfig,
    progress: Progress | None = None,
    *,
    family: str = "",
    finish: Callable[[Dictionary, Path], None] | None = None,
    checkpoint_every: int = 500,
) -> dict[str, Any]:
    """Train on a folder of activations, write the dictionary to `out` and return its metrics.

    The state of an unfinished training is saved next to `out`, as NAME.training. After an interruption, the
    same call resumes from this file. The metrics are those of `measure_by_timestep`, measured on a tenth of
    the items, which are held out from training.
    family: the model's name to store in the dictionary; by default the name in the manifest.
    finish(dictionary, data): called before the dictionary is saved, for example to add labels to it.
    """
    shards = ShardSet(data)
    seen, held_out = shards.split()
    if not held_out.n_rows:  # checked now, so that the error does not come after a long training
        raise RevelioError(
            f"There are activations of only {shards.n_items} images or texts, which leaves none to "
            "measure the SAE on; harvest more."
        )
    checkpoint = out.with_name(f"{out.name}.training")
    tensor_file.discard_unfinished(out)
    dictionary = train(seen, config, progress, checkpoint=checkpoint, checkpoint_every=checkpoint_every)
    processes, _ = join_processes(config.device)
    if not processes.first:
        processes.wait()  # accelerate ends all processes as soon as one of them fails
        return {}
    dictionary.hook_point, dictionary.captured = shards.source.hook_point, shards.source.captured
    dictionary.model_family = family or shards.source.model
    rows = held_out.all(limit=METRIC_ROWS)
    metrics = measure_by_timestep(dictionary, rows.x, rows.timestep)
    dictionary.metrics = {name: value for name, value in metrics.items() if isinstance(value, float)}
    if dictionary.modulation is None:
        dictionary.set_stats(feature_stats(dictionary, (part.x for part in shards.maps())))
    if finish is not None:
        finish(dictionary, data)
    save_dictionary(dictionary, out)
    processes.wait()
    return metrics
