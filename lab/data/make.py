"""Render a data set of avatars in parallel and store it as shards; an interrupted run resumes."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from comfy_revelio.errors import RevelioError

from .attributes import NAMES, labels_for, seed_text, to_array
from .render import ensure_packages, node, render

SHARD = 5000


def write_shard(path: Path, namespace: str, split: str, start: int, count: int, size: int) -> int:
    """Render avatars ``start`` to ``start + count - 1`` of a namespace into one file; return ``count``.

    Tensors: ``images`` uint8 [n, size, size, 3], ``labels`` int16 [n, attributes], ``seeds`` int64 [n] (the
    avatars' numbers in the namespace). The file gets its final name only when it is complete.
    """
    numbers = np.arange(start, start + count, dtype=np.int64)
    labels = [labels_for(namespace, int(number), split=split) for number in numbers]
    images = render(labels, [seed_text(namespace, int(number)) for number in numbers], size=size)
    tensors = {"images": images, "labels": np.stack([to_array(row) for row in labels]), "seeds": numbers}
    partial = path.with_suffix(".partial")
    save_file(
        tensors,
        str(partial),
        metadata={"namespace": namespace, "split": split, "attributes": ",".join(NAMES)},
    )
    partial.replace(path)
    return count


def _check_shard(path: Path, namespace: str, split: str, start: int, count: int, size: int) -> None:
    """Raise RevelioError if an existing shard does not contain the requested avatars."""
    with safe_open(str(path), framework="numpy") as file:
        about = file.metadata() or {}
        seeds, shape = file.get_tensor("seeds"), file.get_slice("images").get_shape()
    same = about.get("namespace") == namespace and about.get("split") == split and shape[1:3] == [size, size]
    if not same or len(seeds) != count or seeds[0] != start:
        raise RevelioError(
            f"{path} contains other avatars than requested (namespace {about.get('namespace')}, split "
            f"{about.get('split')}, {len(seeds)} from number {seeds[0]}): use another folder or delete it."
        )


def make(
    out: Path, *, namespace: str, count: int, split: str, workers: int, size: int = 128, first: int = 0
) -> None:
    """Write ``count`` avatars, from number ``first`` on, to the folder ``out``; existing shards are kept."""
    node()
    ensure_packages()
    seed_text(namespace, first)  # raises for unknown namespaces before any work is done
    out.mkdir(parents=True, exist_ok=True)
    jobs = []
    for number, start in enumerate(range(0, count, SHARD)):
        path = out / f"shard_{number:05}.safetensors"
        job = (path, namespace, split, first + start, min(SHARD, count - start), size)
        if path.exists():
            _check_shard(*job)
        else:
            jobs.append(job)
    todo = sum(job[4] for job in jobs)
    print(
        f"{count - todo} of {count} avatars exist already; making {todo} with {workers} workers",
        flush=True,
    )
    begin, done = time.monotonic(), 0
    with ProcessPoolExecutor(max_workers=max(1, workers), mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(write_shard, *job) for job in jobs]):
            done += future.result()
            rate = done / (time.monotonic() - begin)
            print(f"{done}/{todo} avatars, {rate:.0f}/s, {(todo - done) / rate:.0f} s left", flush=True)
