"""Harvest in several processes. Each process writes into a separate folder; at the end, these are merged.

A kill at any moment leaves only complete shards in these folders. The next harvest begins by merging them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import RevelioError
from ..files import tensor_file
from .harvest import CaptureSpec, Host, Item, harvest, unfinished_items
from .processes import Processes
from .prompt_file import add_prompts
from .shards.manifest import (
    MANIFEST,
    Items,
    Manifest,
    Shard,
    check_shards,
    next_name,
    read_manifest,
    write_manifest,
)

PART = "part-"
"""Prefix of the processes' folders, which are subfolders of the harvest's folder."""


def harvest_in_parallel(
    host: Host,
    items: Sequence[Item],
    out: Path,
    spec: CaptureSpec,
    processes: Processes,
    *,
    budget_bytes: int | None = None,
    **options: Any,
) -> dict[str, Path]:
    """Run `harvest` on this process's share of the items; return once the rows of all processes are in `out`.

    Every process must call this. The rows are those that one process would harvest, in another order.
    budget_bytes: the total for all processes, which is split equally.
    """
    if processes.first:
        merge_parts(out)
    if processes.world == 1:
        return harvest(host, items, out, spec, budget_bytes=budget_bytes, **options)
    processes.wait()
    folders, left = unfinished_items(host, items, out, spec)
    own = left[processes.rank :: processes.world]
    share = None if budget_bytes is None else (budget_bytes - _bytes_on_disk(out)) // processes.world
    error = None
    try:
        if own:
            harvest(host, own, out / f"{PART}{processes.rank}", spec, budget_bytes=share, **options)
    except RevelioError as problem:
        error = problem  # raised after the other processes have finished and the shards are merged
    processes.wait()
    if processes.first:
        merge_parts(out)
        add_prompts(out, {item.number: item.prompt for item in items})
    processes.wait()
    if error is not None:
        raise error
    return folders


def merge_parts(out: Path) -> None:
    """Move the finished shards from the processes' folders to the harvest's folder; remove the former."""
    for part in sorted(out.glob(f"{PART}*")):
        for folder in sorted(file.parent for file in part.rglob(MANIFEST)):
            _merge_folder(folder, out / folder.relative_to(part))
        shutil.rmtree(part)


def _merge_folder(source: Path, target: Path) -> None:
    """Add the shards in folder `source` to folder `target`, except for items that `target` already has.

    Raises RevelioError when the two folders differ in model, hook point or other settings.
    """
    theirs = read_manifest(source)
    check_shards(source, theirs)
    ours = read_manifest(target) if (target / MANIFEST).is_file() else Manifest(theirs.source, theirs.dtype)
    if (difference := ours.difference(theirs)) is not None:
        raise RevelioError(f"{target} contains other activations: {difference}; choose another folder.")
    target.mkdir(parents=True, exist_ok=True)
    before = ours.items
    for shard in theirs.shards:
        new = [item for item in shard.items if item not in before]  # a killed merge may have added some
        if not new:
            continue
        name, rows = next_name(ours), shard.rows
        (target / name).unlink(missing_ok=True)  # a killed merge's leftover, in no manifest
        if len(new) == len(shard.items):
            _link_or_copy(source / shard.name, target / name)
        else:
            rows = _copy_items(source / shard.name, target / name, new)
        ours = replace(ours, shards=(*ours.shards, Shard(name, rows, Items.of(new))))
        write_manifest(target, ours)


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without links
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(file, part)
        part.replace(target)


def _copy_items(file: Path, target: Path, items: list[int]) -> int:
    """Copy the rows of the given items from a shard to a new file; return the number of rows."""
    tensors = tensor_file.read_tensors(file, ["x", "timestep", "item"])
    kept = torch.isin(tensors["item"], torch.tensor(items))
    tensor_file.write(target, {name: tensor[kept] for name, tensor in tensors.items()}, {})
    return int(kept.sum())


def _bytes_on_disk(out: Path) -> int:
    return sum(file.stat().st_size for file in out.rglob("rows-*.safetensors"))
