"""From harvested activations to a finished dictionary file: train, measure on held-out items, save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..dictionary import Dictionary, FeatureStats, save_dictionary
from ..dictionary.metadata import CAPTURED
from ..errors import RevelioError, checked_choice
from ..files import tensor_file
from .config import TrainConfig
from .metrics import error_by_timestep, feature_stats, measure
from .processes import join
from .shards import Batch, ShardSet
from .trainer import Progress, train

MEASURED = 65_536
"""Held-out rows to measure on, at most."""
_STATS_ROWS = 262_144
"""Rows that feature statistics are taken from, at most."""


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
    """Train on a folder of activations, write the dictionary to `out` and return its figures.

    The state of the unfinished training lies beside `out`, as NAME.training: the same call after a kill goes
    on from it. A tenth of the items is held out for the figures: explained_variance, fvu, cosine, l0,
    dead_share, and by_timestep. finish(dictionary, data) is called before the dictionary is saved, and may
    add to it.
    """
    shards = ShardSet(data)
    seen, held_out = shards.split()
    if not held_out.n_rows:  # said now, not when all the work is done
        raise RevelioError(
            f"There are activations of only {shards.n_items} pictures or texts, so that none is left to "
            "measure the SAE on; harvest more."
        )
    state = out.with_name(f"{out.name}.training")
    tensor_file.discard_unfinished(out)
    dictionary = train(seen, config, progress, checkpoint=state, checkpoint_every=checkpoint_every)
    processes, _ = join(config.device)
    if not processes.first:
        processes.wait()  # accelerate ends all processes as soon as one ends badly
        return {}
    dictionary.hook_point = shards.source.hook_point
    dictionary.captured = checked_choice("captured", shards.source.captured, CAPTURED)
    dictionary.model_family = family or shards.source.model
    unseen = held_out.all(limit=MEASURED)
    figures = metrics_on(dictionary, unseen.x, unseen.timestep)
    dictionary.metrics = {name: value for name, value in figures.items() if isinstance(value, float)}
    if dictionary.modulation is None:
        dictionary.set_stats(stats_on(dictionary, shards))
    if finish is not None:
        finish(dictionary, data)
    save_dictionary(dictionary, out)
    processes.wait()
    return figures


def metrics_on(dictionary: Dictionary, x: Tensor, timesteps: Tensor) -> dict[str, Any]:
    """Figures on rows [N, d], over all of them and by ranges of timesteps."""
    figures: dict[str, Any] = dict(measure(dictionary, x, timesteps=timesteps))
    figures["by_timestep"] = error_by_timestep(dictionary, x, timesteps)
    return figures


def stats_on(dictionary: Dictionary, shards: ShardSet) -> FeatureStats:
    """Mean active values, rates, and maps where all items share one grid."""
    return feature_stats(dictionary, (part.x for part in maps_of(shards)))


def maps_of(shards: ShardSet) -> Iterator[Batch]:
    """Whole maps from all over the set: x [n, height, width, d_model], timestep and item [n].

    Where items have no grid, rows: x [n, d_model].
    """
    grid = shards.source.grid
    cells = 1 if grid is None else grid[0] * grid[1]
    count = max(1, min(shards.n_rows, _STATS_ROWS) // cells)
    picks = torch.linspace(0, shards.n_rows // cells - 1, count).long()
    for part in picks.split(max(1, 16384 // cells)):
        rows = shards.rows((part[:, None] * cells + torch.arange(cells)).flatten())
        x = rows.x if grid is None else rows.x.reshape(len(part), *grid, shards.d_model)
        yield Batch(x, rows.timestep[::cells], rows.item[::cells])
