"""Harvesting activations to disk, from any host that can run a model.

A host turns items (a prompt with a seed, or a real image) into activations; here they go into one folder of
shards for each hook point. If interrupted, the same call resumes where it stopped.
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
    """One thing to run the model on."""

    number: int
    """Its identity on disk."""
    prompt: str
    seed: int
    image: Path | None = None
    """A real image; None generates one."""


@dataclass(frozen=True)
class CaptureSpec:
    """Which activations to keep."""

    hook_points: tuple[str, ...]
    captured: Captured = "output"
    """output: what the module returns; diff: its output minus its input."""
    steps: tuple[int, ...] = ()
    """For prompts: the sampling steps to keep, from 0; () keeps all."""
    timesteps: tuple[float, ...] = (25.0, 200.0)
    """For images: the timesteps to which they are noised, each in 0..1000."""


@dataclass(frozen=True)
class SamplingSettings:
    """How images are generated from prompts."""

    height: int
    """In pixels; real images are cropped and resized to it."""
    width: int
    steps: int = 20
    """Steps of the sampler."""
    cfg: float = 3.0
    """Scale of the classifier-free guidance."""

    def manifest_fields(self) -> dict[str, str]:
        """The settings as the manifest keeps them.

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
    """Height and width, of n cells together."""


class Host(Protocol):
    """A model that can be run."""

    name: str
    """The model's identity."""
    settings: dict[str, str]
    """Whatever else decides its activations."""

    def hook_point(self, name: str) -> str:
        """The plain name of a hook point; RevelioError when the model has no such hook point."""

    def run(self, items: Sequence[Item], spec: CaptureSpec, /) -> Iterator[CapturedRows]:
        """The activations of some items at once, of the positive prompt's half."""


Progress = Callable[[int, int], None]
"""Called as progress(done, total) in items; whatever it raises ends the harvest."""


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
    """Run the host on all items that are not on disk yet; the folder of each hook point by its plain name.

    batch: items that the host runs at once.
    checkpoint_every: items after which they are written, if they do not fill a shard before; a kill costs no
        more than these.
    budget_bytes: for all folders together. When it is reached, BudgetReached is raised, and what is on disk
        is complete.
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
    """The folder of each hook point by its plain name, and the items that some of them lack.

    Raises RevelioError for unknown hook points, and for folders of another model or other settings.
    """
    names = dict.fromkeys(host.hook_point(name) for name in spec.hook_points)
    folders = {name: out / name for name in names}
    extra = {**host.settings, **_spec_fields(spec, items)}
    finished = [_finished_items(folder, host.name, spec.captured, extra) for folder in folders.values()]
    return folders, [item for item in items if not all(item.number in found for found in finished)]


def items_of_prompts(prompts: Sequence[str], first_seed: int = 0, count: int | None = None) -> list[Item]:
    """`count` items, each prompt in turn, with consecutive seeds; by default one for each prompt.

    >>> items_of_prompts(["a cat", "a dog"], first_seed=7, count=3)[2]
    Item(number=2, prompt='a cat', seed=9, image=None)
    """
    numbers = range(len(prompts) if count is None else count)
    return [Item(number, prompts[number % len(prompts)], first_seed + number) for number in numbers]


def _finished_items(folder: Path, model: str, captured: Captured, extra: dict[str, str]) -> Items:
    """The items that a folder has; RevelioError when they were harvested with other settings."""
    if not (folder / MANIFEST).is_file():
        return Items()
    manifest = read_manifest(folder)
    now = replace(manifest.source, model=model, captured=captured, extra=extra)
    if (difference := manifest.source.difference(now)) is not None:
        raise RevelioError(f"{folder} holds other activations: {difference}; choose another folder.")
    return manifest.items


def _spec_fields(spec: CaptureSpec, items: Sequence[Item]) -> dict[str, str]:
    """What of the spec decides the rows, for the manifest."""
    from_images = bool(items) and items[0].image is not None
    chosen: Sequence[float] = spec.timesteps if from_images else spec.steps
    kind = "timesteps" if from_images else "kept steps"
    return {kind: ", ".join(f"{value:g}" for value in chosen) or "all"}
