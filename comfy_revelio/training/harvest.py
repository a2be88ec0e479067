"""Harvesting activations to disk, from any host that can run a model.

A host turns items (a prompt with a seed, or a real image) into activations; here they go into one folder of
shards for each hook point. Killed and started again with the same arguments, it goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import RevelioError
from ..files import tensor_file
from .shards import Items, ShardWriter, Source
from .shards.manifest import MANIFEST, read_manifest

Captured = Literal["output", "diff"]
"""What of a module is harvested."""
PROMPTS = "prompts.json"
"""Beside the folders of the hook points: the prompt of every item, for labels."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Item:
    """One thing to run the model on. number: what it is known by on disk; image: a real picture, or None."""

    number: int
    prompt: str
    seed: int
    image: Path | None = None


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
        """The settings as the manifest keeps them."""
        return {"size": f"{self.width}x{self.height}", "steps": str(self.steps), "cfg": f"{self.cfg:g}"}


class CapturedRows(NamedTuple):
    """Activations [n, d] of one item at one hook point and timestep; grid: (height, width) with n cells."""

    hook_point: str
    item: int
    timestep: float
    rows: Tensor
    grid: tuple[int, int]


class Host(Protocol):
    """A model that can be run. name: its identity; settings: what else decides its activations."""

    name: str
    settings: dict[str, str]

    def hook_point(self, name: str) -> str:
        """The plain name of a hook point; RevelioError when the model has none such."""

    def run(self, items: Sequence[Item], wanted: CaptureSpec) -> Iterator[CapturedRows]:
        """The activations of some items at once, of the positive prompt's half."""


Progress = Callable[[int, int], None]
"""Called as progress(done, all) in items; whatever it raises ends the harvest."""


def harvest(
    host: Host,
    items: Sequence[Item],
    out: Path,
    wanted: CaptureSpec,
    *,
    batch: int = 8,
    dtype: torch.dtype = torch.float16,
    shard_bytes: int = 256 * 2**20,
    checkpoint_every: int = 64,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Run the host on all items that are not on disk yet; the folder of each hook point by its plain name.

    checkpoint_every: items after which they go to disk, if they are not shard_bytes before; a kill costs no
    more. budget_bytes: of all folders together; when it is reached, BudgetReached is raised and what is on
    disk is whole. Raises RevelioError for unknown hook points, and for folders of another model or settings.
    """
    folders, left = undone(host, items, out, wanted)
    wanted = replace(wanted, hook_points=tuple(folders))
    extra = {**host.settings, **_told(wanted, items)}
    write_prompts(out, items)
    share = None if budget_bytes is None else budget_bytes // max(1, len(folders))
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        for start in range(0, len(left), batch):
            if progress is not None:
                progress(len(items) - len(left) + start, len(items))
            part = left[start : start + batch]
            for taken in host.run(part, wanted):
                if taken.hook_point not in writers:
                    source = Source(
                        host.name,
                        taken.hook_point,
                        wanted.captured,
                        taken.rows.shape[1],
                        taken.grid,
                        extra,
                    )
                    writers[taken.hook_point] = stack.enter_context(
                        ShardWriter(
                            folders[taken.hook_point],
                            source,
                            dtype=dtype,
                            shard_bytes=shard_bytes,
                            shard_items=checkpoint_every,
                            budget_bytes=share,
                        )
                    )
                writers[taken.hook_point].add(taken.item, taken.timestep, taken.rows)
            for writer in writers.values():
                for item in part:
                    writer.finish_item(item.number)
    if progress is not None:
        progress(len(items), len(items))
    return folders


def undone(
    host: Host, items: Sequence[Item], out: Path, wanted: CaptureSpec
) -> tuple[dict[str, Path], list[Item]]:
    """The folder of each hook point by its plain name, and the items that some of them lacks.

    Raises RevelioError for unknown hook points, and for folders of another model or settings.
    """
    names = dict.fromkeys(host.hook_point(name) for name in wanted.hook_points)
    folders = {name: out / name for name in names}
    extra = {**host.settings, **_told(wanted, items)}
    done = [_done(folder, host.name, wanted.captured, extra) for folder in folders.values()]
    return folders, [item for item in items if not all(item.number in have for have in done)]


def items_of_prompts(prompts: Sequence[str], first_seed: int = 0) -> list[Item]:
    """One item for each prompt; its seed is first_seed and its place in the list."""
    return [Item(number, prompt, first_seed + number) for number, prompt in enumerate(prompts)]


def items_of_images(folder: Path, prompt: str = "") -> list[Item]:
    """One item for each picture of a folder, by name; a text file NAME.txt beside one is its prompt."""
    if not folder.is_dir():
        raise RevelioError(f"There is no folder {folder}; check the name.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
    if not files:
        raise RevelioError(f"There are no pictures in {folder}; it takes {', '.join(PICTURES)}.")
    items = []
    for number, file in enumerate(files):
        words = file.with_suffix(".txt")
        text = words.read_text(encoding="utf-8").strip() if words.is_file() else prompt
        items.append(Item(number, text, number, file))
    return items


def read_image(item: Item, drawing: SamplingSettings) -> Tensor:
    """The picture of an item, cropped to the shape and scaled: float32 [height, width, 3] in 0..1."""
    import numpy as np
    from PIL import Image, ImageOps

    assert item.image is not None
    try:
        with Image.open(item.image) as picture:
            fitted = ImageOps.fit(
                picture.convert("RGB"), (drawing.width, drawing.height), Image.Resampling.LANCZOS
            )
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RevelioError(f"{item.image} cannot be read as a picture ({error}); take it away.") from None
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255)


def prompts_of(out: Path) -> dict[int, str]:
    """The prompt of every item of a harvest, by number; {} where none were written down."""
    file = out / PROMPTS
    if not file.is_file():
        return {}
    table = tensor_file.parse_json(file, file.read_bytes(), "content")
    if not isinstance(table, dict) or not all(k.isdigit() and isinstance(v, str) for k, v in table.items()):
        raise RevelioError(f"{file} is broken: it is no table of prompts; take it away.")
    return {int(number): prompt for number, prompt in table.items()}


def write_prompts(out: Path, items: Sequence[Item]) -> None:
    """Note the prompt of every item beside the folders of the hook points."""
    table = prompts_of(out) | {item.number: item.prompt for item in items}
    text = json.dumps({str(number): prompt for number, prompt in sorted(table.items())}, indent=0)
    part = out / f"{PROMPTS}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(out / PROMPTS)
    except OSError as error:
        raise RevelioError(f"{out} cannot be written ({error.strerror}); choose another folder.") from None


def _done(folder: Path, model: str, captured: str, extra: dict[str, str]) -> Items:
    """The items that a folder has; RevelioError when they were harvested in another way."""
    if not (folder / MANIFEST).is_file():
        return Items()
    manifest = read_manifest(folder)
    now = replace(manifest.source, model=model, captured=captured, extra=extra)
    if (difference := manifest.source.difference(now)) is not None:
        raise RevelioError(f"{folder} holds other activations: {difference}; choose another folder.")
    return manifest.items


def _told(wanted: CaptureSpec, items: Sequence[Item]) -> dict[str, str]:
    """What of `wanted` decides the rows, for the manifest."""
    from_images = bool(items) and items[0].image is not None
    chosen: Sequence[float] = wanted.timesteps if from_images else wanted.steps
    kind = "timesteps" if from_images else "kept steps"
    return {kind: ", ".join(f"{value:g}" for value in chosen) or "all"}
