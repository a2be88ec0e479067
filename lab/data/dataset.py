"""Read rendered avatars from their shards into memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file

from comfy_revelio.errors import RevelioError
from comfy_revelio.files.tensor_file import read_header


class Avatars(NamedTuple):
    images: torch.Tensor
    """uint8 [N, 3, H, W]"""
    labels: torch.Tensor
    """int64 [N, attributes], -1 where an attribute is not visible"""


def load_avatars(folder: Path, namespace: str, *, limit: int | None = None) -> Avatars:
    """Load avatars, at most `limit`, in order from the shards that `python -m lab data --out folder` wrote.

    namespace: the namespace that the avatars must have, so that model and judge never share an avatar.
    Avatars in the namespace "model" must also be in the split "train".
    """
    shards = sorted(Path(folder).glob("*.safetensors"))
    if not shards:
        raise RevelioError(
            f"No avatars in {folder}: make some with `python -m lab data --out {folder} --count 50000`."
        )
    images, labels, count = [], [], 0
    for shard in shards:
        about = read_header(shard).metadata
        if about.get("namespace") != namespace or (namespace == "model" and about.get("split") != "train"):
            raise RevelioError(
                f"{shard} has avatars of namespace {about.get('namespace')}, split {about.get('split')}, but "
                f"avatars of namespace {namespace} are needed: make them in a separate folder."
            )
        data = load_file(str(shard))
        images.append(data["images"])
        labels.append(data["labels"])
        count += len(data["images"])
        if limit is not None and count >= limit:
            break
    pixels = np.concatenate(images)[:limit]
    return Avatars(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        labels=torch.from_numpy(np.concatenate(labels)[:limit].astype(np.int64)),
    )


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 images [N, 3, H, W] to float32 in -1..1, the range of the autoencoder."""
    return images.float().div_(127.5).sub_(1.0)
