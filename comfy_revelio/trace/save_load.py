"""A trace in one .safetensors file, exact, and read with suspicion.

Tensors: frame.N.indices (int32 [B, T, k]) and frame.N.values (float32) for frame N, frame.N.scale and
frame.N.shift (float32 [B, T]) where its dictionary normalises, and note.N.mean_active (float32 [n]) for
dictionary N where known. Metadata: format "revelio-trace", format_version "1", and trace, a JSON object with
total_steps, sigmas, frames and dictionaries, and words for a trace of a prompt. Traces of earlier versions
lack scale and shift, and d_model, called and aliases of a dictionary.
Numbers in JSON are written so that they read back as the same doubles.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..dictionary import Codes
from ..errors import RevelioError
from ..files import tensor_file
from .records import DictionaryNote, Frame

if TYPE_CHECKING:
    from .trace import Trace

FORMAT = "revelio-trace"
FORMAT_VERSION = "1"
# A table of one number per feature is made for every ranking: bounds what a file can ask for.
MOST_FEATURES = 2**22


def save(trace: Trace, path: str | os.PathLike[str]) -> None:
    tensors: dict[str, Tensor] = {}
    for number, frame in enumerate(trace.frames):
        tensors[f"frame.{number}.indices"] = frame.codes.indices.to(torch.int32)
        tensors[f"frame.{number}.values"] = frame.codes.values
        for name in ("scale", "shift"):
            if (tensor := getattr(frame.codes, name)) is not None:
                tensors[f"frame.{number}.{name}"] = tensor
    for number, note in enumerate(trace.dictionaries.values()):
        if note.mean_active is not None:
            tensors[f"note.{number}.mean_active"] = note.mean_active
    text = json.dumps(_description(trace), allow_nan=False)
    tensor_file.write(path, tensors, {"format": FORMAT, "format_version": FORMAT_VERSION, "trace": text})


def load(path: str | os.PathLike[str]) -> Trace:
    from .trace import Trace

    header = probe(path)
    table = tensor_file.parse_json(path, header.metadata.get("trace", ""), "description")
    try:
        return _build(Trace, table, tensor_file.read_tensors(path, list(header.tensors)))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise RevelioError(f"{path} is a broken trace ({reason}); save it again from its run.") from None


def probe(path: str | os.PathLike[str]) -> tensor_file.Header:
    """The checked header of a trace, without its codes; RevelioError when the file is no trace."""
    header = tensor_file.read_header(path)
    if header.metadata.get("format") != FORMAT:
        raise RevelioError(f"{path} is no trace: its metadata lacks format {FORMAT!r}; choose a saved trace.")
    if (version := header.metadata.get("format_version")) != FORMAT_VERSION:
        raise RevelioError(
            f"{path} has format version {version!r}, but this Revelio reads "
            f"{FORMAT_VERSION!r}; update Revelio."
        )
    return header


def _description(trace: Trace) -> dict[str, Any]:
    return {
        "total_steps": trace.total_steps,
        "sigmas": list(trace.sigmas),
        "frames": [
            {
                "hook_point": frame.hook_point,
                "step": frame.step,
                "evaluation": frame.evaluation,
                "sigma": frame.sigma,
                "timestep": frame.timestep,
                "role": frame.role,
                "grid": list(frame.grid),
            }
            for frame in trace.frames
        ],
        "dictionaries": [
            {
                "hook_point": name,
                "n_features": note.n_features,
                "k": note.k,
                "labels": {label: list(features) for label, features in note.labels.items()},
                "d_model": note.d_model,
                "called": note.hook_point,
                "aliases": list(note.aliases),
            }
            for name, note in trace.dictionaries.items()
        ],
    } | ({"words": list(trace.words)} if trace.words else {})


def _build(kind: type[Trace], table: Any, tensors: dict[str, Tensor]) -> Trace:
    notes: dict[str, DictionaryNote] = {}
    for number, entry in enumerate(_list(table["dictionaries"])):
        notes[_text(entry["hook_point"])] = _note(entry, tensors.pop(f"note.{number}.mean_active", None))
    frames = []
    for number, entry in enumerate(_list(table["frames"])):
        indices, values = (tensors.pop(f"frame.{number}.{name}") for name in ("indices", "values"))
        undone = [tensors.pop(f"frame.{number}.{name}", None) for name in ("scale", "shift")]
        frames.append(_frame(entry, notes, indices, values, undone))
    if tensors:
        raise ValueError(f"unknown tensors {', '.join(sorted(tensors)[:4])}")
    sigmas = tuple(_number(sigma) for sigma in _list(table["sigmas"]))
    words = tuple(_text(word) for word in _list(table.get("words", [])))
    if words and any(len(words) != math.prod(frame.grid) for frame in frames):
        raise ValueError(f"{len(words)} words do not cover the positions of its frames")
    return kind(tuple(frames), notes, _count(table["total_steps"]), sigmas, words)


def _note(entry: dict[str, Any], mean_active: Tensor | None) -> DictionaryNote:
    n, k = _count(entry["n_features"]), _count(entry["k"])
    if not 1 <= k <= n <= MOST_FEATURES:
        raise ValueError(f"k {k} does not fit {n} features")
    if mean_active is not None and (mean_active.shape != (n,) or mean_active.dtype != torch.float32):
        raise ValueError("mean_active does not cover the features")
    labels = {_text(name): [_count(f) for f in _list(features)] for name, features in entry["labels"].items()}
    if any(feature >= n for features in labels.values() for feature in features):
        raise ValueError("a label names a feature out of range")
    aliases = tuple(_text(name) for name in _list(entry.get("aliases", [])))
    width, called = _count(entry.get("d_model", 0)), _text(entry.get("called", ""))
    return DictionaryNote(n, k, labels, mean_active, width, called, aliases)


def _frame(
    entry: dict[str, Any],
    notes: dict[str, DictionaryNote],
    indices: Tensor,
    values: Tensor,
    undone: list[Tensor | None],
) -> Frame:
    hook_point = _text(entry["hook_point"])
    note = notes[hook_point]
    grid = tuple(_count(side) for side in _list(entry["grid"]))
    if len(grid) not in (2, 3):
        raise ValueError("the grid of a frame is neither that of a picture nor that of a video")
    if indices.dtype != torch.int32 or values.dtype != torch.float32 or indices.shape != values.shape:
        raise ValueError("the codes of a frame have wrong types or shapes")
    if indices.ndim != 3 or tuple(indices.shape[1:]) != (math.prod(grid), note.k):
        raise ValueError(f"the codes of a frame do not lie on its grid of {' by '.join(map(str, grid))}")
    if any(t is not None and (t.shape != indices.shape[:2] or t.dtype != torch.float32) for t in undone):
        raise ValueError("scale or shift of a frame do not lie on its tokens")
    if not len(indices):
        raise ValueError("a frame holds no picture")
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= note.n_features):
        raise ValueError("the codes of a frame name features out of range")
    return Frame(
        hook_point,
        _count(entry["step"]),
        _count(entry["evaluation"]),
        _number(entry["sigma"]),
        _number(entry["timestep"]),
        _text(entry["role"]),
        grid,
        Codes(indices.to(torch.int64), values, note.n_features, *undone),
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} is no list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)
