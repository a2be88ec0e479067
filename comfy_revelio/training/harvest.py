"""Save activations to disk, from any host that can run a model.

A host turns items (a prompt with a seed, or a real image) into activations; `harvest` writes them as shards,
one folder per hook point. After an interruption, the same call resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.point import Captured
from .prompt_file import add_prompts
from .shards import Items, ShardWriter, Source
from .shards.manifest import MANIFEST, read_manifest


@dataclass(frozen=True)
class Item:
    """One input to run the model on: a prompt with a seed, or an image."""

    number: int
    """Identifies the item on disk."""
    prompt: str
    seed: int
    image: Path | None = None
    """File of a real image; if None, an image is generated from the prompt."""


@dataclass(frozen=True)
class CaptureSpec:
    """Which activations to keep."""

    hook_points: tuple[str, ...]
    captured: Captured = "output"
    """output: what the module returns; diff: the module's output minus its input."""
    steps: tuple[int, ...] = ()
    """For prompts: the sampling steps to save, from 0; () saves all."""
    timesteps: tuple[float, ...] = (25.0, 200.0)
    """For images: the timesteps (0..1000) to which each image is noised."""


@dataclass(frozen=True)
class SamplingSettings:
    """Settings for generating images from prompts."""

    height: int
    """Height in pixels (width likewise). Real images are resized and cropped to height x width."""
    width: int
    steps: int = 20
    """Steps of the sampler."""
    cfg: float = 3.0
    """Classifier-free guidance scale."""

    def manifest_fields(self) -> dict[str, str]:
        """Return the settings as text, as the manifest stores them.

        >>> SamplingSettings(height=512, width=768).manifest_fields()
        {'size': '768x512', 'steps': '20', 'cfg': '3'}
        """
        return {"size": f"{self.width}x{self.height}", "steps": str(self.steps), "cfg": f"{self.cfg:g}"}


class CapturedRows(NamedTuple):
    """Activations of one item at one hook point and timestep."""

    hook_point: str
    item: int
    timestep: float
    rows: Tensor
    """[n, d]"""
    grid: tuple[int, int]
    """Height and width of the token map; n = height * width."""


class Host(Protocol):
    """A model and the code that runs it on items."""

    name: str
    """Identifies the model."""
    settings: dict[str, str]
    """All other settings that affect the activations."""

    def hook_point(self, name: str) -> str:
        """Return the standard name of a hook point; raise RevelioError if the model does not have it."""

    def run(self, items: Sequence[Item], spec: CaptureSpec, /) -> Iterator[CapturedRows]:
        """Run the model on a batch of items; yield their activations, but not those of a negative prompt."""


Progress = Callable[[int, int], None]
"""Called as progress(finished items, all items); an exception from it ends the harvest."""


def harvest(
    host: Host,
    items: Sequence[Item],
    out: Path,
    spec: CaptureSpec,
    *,
    batch: int = 8,
    dtype: torch.dtype = torch.float16,
    checkpoint_every: int = 64,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Run the host on all items that are not on disk yet. Return {a hook point's standard name: its folder}.

    batch: number of items that the host runs at once.
    checkpoint_every: maximum number of items per shard, and thus the most items that a kill can lose.
    budget_bytes: maximum size of all folders together. Reaching it raises BudgetReached; all items on
        disk are complete.
    Raises RevelioError for unknown hook points, and for folders of another model or other settings.
    """
    folders, left = unfinished_items(host, items, out, spec)
    spec = replace(spec, hook_points=tuple(folders))
    extra = {**host.settings, **_spec_fields(spec, items)}
    add_prompts(out, {item.number: item.prompt for item in items})
    new_writer = partial(
        ShardWriter,
        dtype=dtype,
        shard_items=checkpoint_every,
        budget_bytes=None if budget_bytes is None else budget_bytes // max(1, len(folders)),
    )
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        for start in range(0, len(left), batch):
            if progress is not None:
                progress(len(items) - len(left) + start, len(items))
            part = left[start : start + batch]
            for name, item, timestep, rows, grid in host.run(part, spec):
                if name not in writers:
                    source = Source(host.name, name, spec.captured, rows.shape[1], grid, extra)
                    writers[name] = stack.enter_context(new_writer(folders[name], source))
                writers[name].add(item, timestep, rows)
            for writer in writers.values():
                for done in part:
                    writer.finish_item(done.number)
    if progress is not None:
        progress(len(items), len(items))
    return folders


def unfinished_items(
    host: Host, items: Sequence[Item], out: Path, spec: CaptureSpec
) -> tuple[dict[str, Path], list[Item]]:
    """Return {a hook point's standard name: its folder}, and the items missing from at least one folder.

    Raises RevelioError for unknown hook points, and for folders of another model or other settings.
    """
    names = dict.fromkeys(host.hook_point(name) for name in spec.hook_points)
    folders = {name: out / name for name in names}
    extra = {**host.settings, **_spec_fields(spec, items)}
    finished = [_finished_items(folder, host.name, spec.captured, extra) for folder in folders.values()]
    return folders, [item for item in items if not all(item.number in found for found in finished)]


def items_of_prompts(prompts: Sequence[str], first_seed: int = 0, count: int | None = None) -> list[Item]:
    """Return `count` items (by default one per prompt) that cycle through the prompts; seeds are consecutive.

    >>> items_of_prompts(["a cat", "a dog"], first_seed=7, count=3)[2]
    Item(number=2, prompt='a cat', seed=9, image=None)
    """
    numbers = range(len(prompts) if count is None else count)
    return [Item(number, prompts[number % len(prompts)], first_seed + number) for number in numbers]


def _finished_items(folder: Path, model: str, captured: Captured, extra: dict[str, str]) -> Items:
    """Return the items in a folder; raise RevelioError if they were harvested with other settings."""
    if not (folder / MANIFEST).is_file():
        return Items()
    manifest = read_manifest(folder)
    now = replace(manifest.source, model=model, captured=captured, extra=extra)
    if (difference := manifest.source.difference(now)) is not None:
        raise RevelioError(f"{folder} contains other activations: {difference}; choose another folder.")
    return manifest.items


def _spec_fields(spec: CaptureSpec, items: Sequence[Item]) -> dict[str, str]:
    """Return the spec's timesteps (for images) or steps (for prompts) as text, for the manifest."""
    from_images = bool(items) and items[0].image is not None
    chosen: Sequence[float] = spec.timesteps if from_images else spec.steps
    kind = "timesteps" if from_images else "kept steps"
    return {kind: ", ".join(f"{value:g}" for value in chosen) or "all"}
