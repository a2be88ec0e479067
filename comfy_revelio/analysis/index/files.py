"""A feature index as one .safetensors file. Read with suspicion: index files come from anywhere.

Tensors: those of `FeatureIndex` by their names. Metadata: format "revelio-index", format_version "1", and
config, a JSON object with hook_point, dictionary, grid, items, source, and labels: feature -> [text, score or
null, way].
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import RevelioError
from ...files import tensor_file
from .feature_index import FeatureIndex, Label

FORMAT = "revelio-index"
FORMAT_VERSION = "1"
LARGEST_CROP = 256
MOST_EXAMPLES = 64
"""Of one feature."""
_MOST_FEATURES = 2**24
_KEYS = {"hook_point", "dictionary", "grid", "items", "source", "labels"}
_BY_FEATURE = {"mean_active": "F32", "peak": "F32", "rate": "F32"}
_BY_EXAMPLE = {"value": "F32", "item": "I64", "token": "I32", "timestep": "F32"}


@dataclass(frozen=True)
class IndexHead:
    """What the header of an index file says, checked. crop: side of the crops in pixels, 0 without any."""

    path: Path
    hook_point: str
    dictionary: str
    grid: tuple[int, int] | None
    items: int
    source: str
    n_features: int
    n_examples: int
    crop: int
    labels: Mapping[int, Label]


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one feature, as in `FeatureIndex`; crops uint8 [m, side, side, 3], side 0 without."""

    value: Tensor
    item: Tensor
    token: Tensor
    timestep: Tensor
    crops: Tensor


def beside(path: str | os.PathLike[str]) -> Path:
    """Where the index of a dictionary file lies: NAME.index.safetensors in the same folder."""
    path = Path(path)
    return path.with_name(f"{path.stem}.index.safetensors")


def write_index(index: FeatureIndex, path: str | os.PathLike[str]) -> None:
    """Write the file in one piece; the old one stays when that fails."""
    names = ("starts", *_BY_FEATURE, *_BY_EXAMPLE)
    tensors = {name: getattr(index, name) for name in names}
    if index.crops is not None:
        tensors["crops"] = index.crops
    config = {
        "hook_point": index.hook_point,
        "dictionary": index.dictionary,
        "grid": None if index.grid is None else list(index.grid),
        "items": index.items,
        "source": index.source,
        "labels": {str(f): [label.text, label.score, label.by] for f, label in sorted(index.labels.items())},
    }
    text = json.dumps(config, allow_nan=False)
    tensor_file.write(path, tensors, {"format": FORMAT, "format_version": FORMAT_VERSION, "config": text})


def read_head(path: str | os.PathLike[str]) -> IndexHead:
    """Check the header of an index file; no tensor is read. RevelioError for whatever is not sound."""
    header = tensor_file.read_header(path)
    if header.metadata.get("format") != FORMAT:
        raise RevelioError(f"{path} is no feature index; make one with Label Features or the label command.")
    if (version := header.metadata.get("format_version")) != FORMAT_VERSION:
        raise RevelioError(
            f"{path} has format version {version!r}, but this Revelio reads {FORMAT_VERSION!r}; update it."
        )
    n, m, crop = _sizes(path, header)
    config = tensor_file.parse_json(path, header.metadata.get("config", ""), "config")
    if not isinstance(config, dict) or set(config) != _KEYS:
        raise _broken(path, f"its config must have exactly the entries {', '.join(sorted(_KEYS))}")
    texts = (config["hook_point"], config["dictionary"], config["source"])
    if not all(isinstance(text, str) and len(text) <= 1000 for text in texts):
        raise _broken(path, "its hook point, dictionary or source is no short text")
    grid = config["grid"]
    sides = grid if isinstance(grid, list) else []
    if grid is not None and [type(s) is int and 0 < s < 2**20 for s in sides] != [True, True]:
        raise _broken(path, "its grid is no height and width")
    if type(config["items"]) is not int or not 0 <= config["items"] < 2**62:
        raise _broken(path, "its number of pictures is none")
    return IndexHead(
        Path(path),
        config["hook_point"],
        config["dictionary"],
        None if grid is None else (grid[0], grid[1]),
        config["items"],
        config["source"],
        n,
        m,
        crop,
        _labels(path, config["labels"], n),
    )


def read_index(path: str | os.PathLike[str]) -> FeatureIndex:
    """The whole index, to label it anew."""
    head = read_head(path)
    names = ["starts", *_BY_FEATURE, *_BY_EXAMPLE, *(["crops"] if head.crop else [])]
    tensors = tensor_file.read_tensors(path, names)
    for feature in range(head.n_features):
        _stretch(head, tensors["starts"], feature)
    for name in (*_BY_FEATURE, "value", "timestep"):
        if not bool(torch.isfinite(tensors[name]).all()):
            raise _broken(path, f"{name} holds numbers that are not finite")
    return FeatureIndex(
        head.hook_point, head.dictionary, head.grid, head.items, head.source, labels=head.labels, **tensors
    )


def read_examples(head: IndexHead, feature: int) -> Examples:
    """The examples of one feature; only its own part of the file is read, and where it begins."""
    from safetensors import SafetensorError, safe_open

    if not 0 <= feature < head.n_features:
        raise RevelioError(f"There is no feature {feature} in {head.path.name}.")
    try:
        with safe_open(str(head.path), framework="pt") as file:
            first, last = _stretch(head, file.get_slice("starts")[feature : feature + 2], 0)
            found = {name: file.get_slice(name)[first:last] for name in _BY_EXAMPLE}
            crops = file.get_slice("crops")[first:last] if head.crop else torch.zeros(last - first, 0, 0, 3)
    except (SafetensorError, OSError) as error:
        raise RevelioError(f"{head.path} cannot be read ({error}); make the index again.") from None
    return Examples(**found, crops=crops.to(torch.uint8))


def _stretch(head: IndexHead, starts: Tensor, feature: int) -> tuple[int, int]:
    first, last = int(starts[feature]), int(starts[feature + 1])
    if not 0 <= first <= last <= head.n_examples or last - first > MOST_EXAMPLES:
        raise _broken(head.path, "the places of its examples are out of range")
    return first, last


def _sizes(path: str | os.PathLike[str], header: tensor_file.Header) -> tuple[int, int, int]:
    """(features, examples, side of the crops), after all tensors were found to agree with each other."""
    known = {"starts": "I64", **_BY_FEATURE, **_BY_EXAMPLE}
    names = set(header.tensors)
    if names - {"crops"} != set(known):
        raise _broken(path, f"it must hold {', '.join(known)}, and crops or not, and nothing else")
    shape = header.tensors["starts"].shape
    if len(shape) != 1 or not 2 <= shape[0] <= _MOST_FEATURES:
        raise _broken(path, "its starts are no list")
    n, m = shape[0] - 1, math.prod(header.tensors["value"].shape)
    for name, dtype in known.items():
        info = header.tensors[name]
        size = n + 1 if name == "starts" else n if name in _BY_FEATURE else m
        if info.dtype != dtype or info.shape != (size,):
            raise _broken(path, f"{name} must be {dtype} [{size}], not {info.dtype} {list(info.shape)}")
    if "crops" not in names:
        return n, m, 0
    crops = header.tensors["crops"]
    side = crops.shape[1] if len(crops.shape) == 4 else 0
    if crops.dtype != "U8" or not 0 < side <= LARGEST_CROP or crops.shape != (m, side, side, 3):
        raise _broken(path, f"crops must be U8 [{m}, side, side, 3] with a side to {LARGEST_CROP}")
    return n, m, side


def _labels(path: str | os.PathLike[str], table: Any, n: int) -> dict[int, Label]:
    if not isinstance(table, dict):
        raise _broken(path, "its labels are no table")
    labels = {}
    for feature, entry in table.items():
        if not (feature.isascii() and feature.isdigit() and len(feature) < 12 and int(feature) < n):
            raise _broken(path, f"it labels a feature {feature[:20]!r} that does not exist")
        if not isinstance(entry, list) or len(entry) != 3:
            raise _broken(path, f"the label of feature {feature} is malformed")
        text, score, way = entry
        if (
            not isinstance(text, str)
            or not isinstance(way, str)
            or type(score) not in (int, float, type(None))
        ):
            raise _broken(path, f"the label of feature {feature} is malformed")
        try:
            labels[int(feature)] = Label(text, score, way)
        except RevelioError:
            raise _broken(path, f"the label of feature {feature} is malformed") from None
    return labels


def _broken(path: str | os.PathLike[str], reason: str) -> RevelioError:
    return RevelioError(f"{path} is broken: {reason}; make the index again.")
