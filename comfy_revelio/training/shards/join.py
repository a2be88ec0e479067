"""Several processes that harvest together: each writes into a folder of its own; these are then put together.

A kill at any moment leaves whole shards in the folders; the next harvest begins by putting them together.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...errors import RevelioError
from ...files import tensor_file
from ..harvest import CaptureSpec, Host, Item, harvest, undone, write_prompts
from ..processes import Processes
from .manifest import MANIFEST, Items, Manifest, Shard, check_shards, next_name, read_manifest, write_manifest

PART = "part-"
"""How the folders of the processes begin, inside the harvest's own."""


def harvest_together(
    host: Host,
    items: Sequence[Item],
    out: Path,
    wanted: CaptureSpec,
    processes: Processes,
    *,
    budget_bytes: int | None = None,
    **options: Any,
) -> dict[str, Path]:
    """`harvest` by all processes, each with its share of the items; all return when everything is in `out`.

    The shards hold what one process would harvest, in another order. The budget is shared out evenly.
    """
    if processes.first:
        join_parts(out)
    if processes.world == 1:
        return harvest(host, items, out, wanted, budget_bytes=budget_bytes, **options)
    processes.wait()
    folders, left = undone(host, items, out, wanted)
    mine = left[processes.rank :: processes.world]
    share = None if budget_bytes is None else (budget_bytes - _bytes(out)) // processes.world
    failed = None
    try:
        if mine:
            harvest(host, mine, out / f"{PART}{processes.rank}", wanted, budget_bytes=share, **options)
    except RevelioError as problem:
        failed = problem  # told when the others have come to their end too, and what is whole was kept
    processes.wait()
    if processes.first:
        join_parts(out)
        write_prompts(out, items)
    processes.wait()
    if failed is not None:
        raise failed
    return folders


def join_parts(out: Path) -> None:
    """Take the finished shards of all processes' folders into those of the harvest, and remove the former."""
    for part in sorted(out.glob(f"{PART}*")):
        for folder in sorted(file.parent for file in part.rglob(MANIFEST)):
            take_over(folder, out / folder.relative_to(part))
        shutil.rmtree(part)


def take_over(source: Path, target: Path) -> None:
    """List the shards of one folder in another, whose items they add; those that it has already are left out.

    RevelioError when they are of another model, hook point or kind.
    """
    theirs = read_manifest(source)
    check_shards(source, theirs)
    mine = read_manifest(target) if (target / MANIFEST).is_file() else Manifest(theirs.source, theirs.dtype)
    difference = mine.source.difference(theirs.source)
    if difference is not None or mine.dtype != theirs.dtype:
        difference = difference or f"its dtype is {mine.dtype}, not {theirs.dtype}"
        raise RevelioError(f"{target} holds other activations: {difference}; choose another folder.")
    target.mkdir(parents=True, exist_ok=True)
    have = mine.items
    for shard in theirs.shards:
        new = [item for item in shard.items if item not in have]  # after a kill some may be here
        if not new:
            continue
        name = next_name(mine)
        rows = _place(source / shard.name, target / name, None if len(new) == len(shard.items) else new)
        mine = replace(mine, shards=(*mine.shards, Shard(name, rows or shard.rows, Items.of(new))))
        write_manifest(target, mine)


def _place(file: Path, target: Path, items: list[int] | None) -> int | None:
    """Put a finished shard, or only the rows of some of its items, under another name; return the number of
    these rows."""
    target.unlink(missing_ok=True)  # the leftover of a kill: no manifest lists it
    if items is not None:
        tensors = tensor_file.read_tensors(file, ["x", "timestep", "item"])
        kept = torch.isin(tensors["item"], torch.tensor(items))
        tensor_file.write(target, {name: tensor[kept] for name, tensor in tensors.items()}, {})
        return int(kept.sum())
    try:
        os.link(file, target)
    except OSError:  # a file system without links
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(file, part)
        part.replace(target)
    return None


def _bytes(out: Path) -> int:
    return sum(file.stat().st_size for file in out.rglob("rows-*.safetensors"))
