"""Read and write feature index files (.safetensors); reading is strict, as anyone may have made a file.

Tensors: those of `FeatureIndex`, with the same names. Metadata: format "revelio-index", format_version "1",
and config, a JSON object with hook_point, dictionary, grid, items, source and labels. labels maps features to
[text, score or null, way].
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
from ...files.json_fields import Fields, is_count, is_number, is_text
from .feature_index import FeatureIndex, Label

FORMAT = "revelio-index"
FORMAT_VERSION = "1"
_ADVICE = "make the index again"
LARGEST_CROP = 256
MOST_EXAMPLES = 64
"""Maximum number of examples per feature."""
_MOST_FEATURES = 2**24
_KEYS = {"hook_point", "dictionary", "grid", "items", "source", "labels"}
_BY_FEATURE = {"mean_active": "F32", "peak": "F32", "rate": "F32"}
_BY_EXAMPLE = {"value": "F32", "item": "I64", "token": "I32", "timestep": "F32"}


@dataclass(frozen=True)
class IndexHead:
    """The checked header of an index file."""

    path: Path
    hook_point: str
    dictionary: str
    grid: tuple[int, int] | None
    items: int
    source: str
    n_features: int
    n_examples: int
    crop: int
    """Side of the crops in pixels; 0 without crops."""
    labels: Mapping[int, Label]


@dataclass(frozen=True, eq=False)
class Examples:
    """The m examples of one feature, as in `FeatureIndex`."""

    value: Tensor
    item: Tensor
    token: Tensor
    timestep: Tensor
    crops: Tensor
    """uint8 [m, side, side, 3]; side 0 without crops."""


def index_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a dictionary file's index: NAME.index.safetensors in the same folder."""
    path = Path(path)
    return path.with_name(f"{path.stem}.index.safetensors")


def write_index(index: FeatureIndex, path: str | os.PathLike[str]) -> None:
    """Write an index file atomically: if writing fails, the old file remains."""
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
    """Read and check the header of an index file, without reading any tensor."""
    otherwise = "is not a feature index; make one with Label Features or the label command."
    header = tensor_file.read_format(path, FORMAT, FORMAT_VERSION, otherwise)
    n, m, crop = _sizes(path, header)
    config = tensor_file.parse_json(path, header.metadata.get("config", ""), "config")
    fields = Fields(path, config, _ADVICE, "config", _KEYS)
    grid: list[int] | None = fields.take("grid", _is_grid, "a height and a width")
    return IndexHead(
        Path(path),
        fields.text("hook_point", longest=1000),
        fields.text("dictionary", longest=1000),
        None if grid is None else (grid[0], grid[1]),
        fields.count("items", most=2**62 - 1),
        fields.text("source", longest=1000),
        n,
        m,
        crop,
        _labels(fields, n),
    )


def read_index(path: str | os.PathLike[str]) -> FeatureIndex:
    """Read a complete index, for example to label its features again."""
    head = read_head(path)
    names = ["starts", *_BY_FEATURE, *_BY_EXAMPLE, *(["crops"] if head.crop else [])]
    tensors = tensor_file.read_tensors(path, names)
    for feature in range(head.n_features):
        _example_range(head, tensors["starts"], feature)
    for name in (*_BY_FEATURE, "value", "timestep"):
        if not bool(torch.isfinite(tensors[name]).all()):
            raise _broken(path, f"{name} has numbers that are not finite")
    return FeatureIndex(
        head.hook_point, head.dictionary, head.grid, head.items, head.source, labels=head.labels, **tensors
    )


def read_examples(head: IndexHead, feature: int) -> Examples:
    """Read the examples of one feature, without reading those of other features."""
    from safetensors import SafetensorError, safe_open

    if not 0 <= feature < head.n_features:
        raise RevelioError(f"There is no feature {feature} in {head.path.name}.")
    try:
        with safe_open(str(head.path), framework="pt") as file:
            first, last = _example_range(head, file.get_slice("starts")[feature : feature + 2], 0)
            found = {name: file.get_slice(name)[first:last] for name in _BY_EXAMPLE}
            crops = file.get_slice("crops")[first:last] if head.crop else torch.zeros(last - first, 0, 0, 3)
    except (SafetensorError, OSError) as error:
        raise RevelioError(f"{head.path} cannot be read ({error}); make the index again.") from None
    return Examples(**found, crops=crops.to(torch.uint8))


def _example_range(head: IndexHead, starts: Tensor, feature: int) -> tuple[int, int]:
    first, last = int(starts[feature]), int(starts[feature + 1])
    if not 0 <= first <= last <= head.n_examples or last - first > MOST_EXAMPLES:
        raise _broken(head.path, "the positions of its examples are out of range")
    return first, last


def _sizes(path: str | os.PathLike[str], header: tensor_file.Header) -> tuple[int, int, int]:
    """Return (features, examples, side of the crops); raise if a tensor is missing or malformed."""
    known = {"starts": "I64", **_BY_FEATURE, **_BY_EXAMPLE}
    names = set(header.tensors)
    if names - {"crops"} != set(known):
        raise _broken(path, f"it must contain {', '.join(known)}, optionally crops, and nothing else")
    shape = header.tensors["starts"].shape
    if len(shape) != 1 or not 2 <= shape[0] <= _MOST_FEATURES:
        raise _broken(path, "its starts are not a list")
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
        raise _broken(path, f"crops must be U8 [{m}, side, side, 3] with a side up to {LARGEST_CROP}")
    return n, m, side


def _is_grid(value: Any) -> bool:
    sides = value if isinstance(value, list) else []
    return value is None or [is_count(side, 1, 2**20 - 1) for side in sides] == [True, True]


def _labels(fields: Fields, n: int) -> dict[int, Label]:
    labels = {}
    table: dict[str, Any] = fields.take("labels", lambda v: isinstance(v, dict), "a table")
    for feature, entry in table.items():
        if not (feature.isascii() and feature.isdigit() and len(feature) < 12 and int(feature) < n):
            raise fields.broken(f"it labels feature {feature[:20]!r}, which does not exist")
        malformed = fields.broken(f"the label of feature {feature} is malformed")
        if not _is_label(entry):
            raise malformed
        try:
            labels[int(feature)] = Label(*entry)
        except RevelioError:
            raise malformed from None
    return labels


def _is_label(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 3:
        return False
    text, score, way = entry
    return is_text(text) and is_text(way) and (score is None or is_number(score))


def _broken(path: str | os.PathLike[str], reason: str) -> RevelioError:
    return RevelioError(f"{path} is broken: {reason}; {_ADVICE}.")
