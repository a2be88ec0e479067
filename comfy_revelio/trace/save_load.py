"""Save a trace to a .safetensors file without any loss; load a trace and check all its content.

Tensors: frame.N.indices (int32 [B, T, k]) and frame.N.values (float32) for frame N, frame.N.scale and
frame.N.shift (float32 [B, T]) if its dictionary normalises, and note.N.mean_active (float32 [n]) for
dictionary N if known. Metadata: format "revelio-trace", format_version "1", and trace, a JSON object with
total_steps, sigmas, frames and dictionaries, plus words if a prompt was traced. Traces of earlier
versions lack scale and shift, and the fields d_model, called and aliases of each dictionary.
Numbers in the JSON text have enough digits to be read back as the same doubles.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..dictionary import Codes
from ..files import tensor_file
from ..files.json_fields import Fields
from .frames import DictionaryNote, Frame

FORMAT = "revelio-trace"
FORMAT_VERSION = "1"
# A ranking allocates a number per feature: this limit bounds the memory that a manipulated file can demand.
MOST_FEATURES = 2**22


class TraceParts(NamedTuple):
    """The content of a trace file: the fields of `Trace`, in the same order."""

    frames: tuple[Frame, ...]
    dictionaries: Mapping[str, DictionaryNote]
    total_steps: int
    sigmas: tuple[float, ...]
    words: tuple[str, ...]


def save(trace: TraceParts, path: str | os.PathLike[str]) -> None:
    """Write a trace to a file that `load` can read."""
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


def load(path: str | os.PathLike[str]) -> TraceParts:
    """Read a trace; raise RevelioError if the file is missing, broken or not a trace."""
    header = check_file(path)
    table = tensor_file.parse_json(path, header.metadata.get("trace", ""), "description")
    fields = Fields(path, table, "save the trace again from its run")
    tensors = tensor_file.read_tensors(path, list(header.tensors))
    notes: dict[str, DictionaryNote] = {}
    for number, entry in enumerate(fields.tables("dictionaries")):
        notes[entry.text("hook_point")] = _note(entry, tensors.pop(f"note.{number}.mean_active", None))
    frames = tuple(
        _frame(entry, number, notes, tensors) for number, entry in enumerate(fields.tables("frames"))
    )
    if tensors:
        raise fields.broken(f"it has the unknown tensors {', '.join(sorted(tensors)[:4])!r:.200}")
    words = tuple(fields.texts("words", []))
    if words and any(len(words) != math.prod(frame.grid) for frame in frames):
        raise fields.broken(f"its {len(words)} words do not cover the positions of its frames")
    return TraceParts(frames, notes, fields.count("total_steps"), tuple(fields.numbers("sigmas")), words)


def check_file(path: str | os.PathLike[str]) -> tensor_file.Header:
    """Read and check only the header of a trace; raise RevelioError if the file is not a trace."""
    otherwise = f"is not a trace: its metadata lacks format {FORMAT!r}; choose a saved trace."
    return tensor_file.read_format(path, FORMAT, FORMAT_VERSION, otherwise)


def _description(trace: TraceParts) -> dict[str, Any]:
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


def _note(entry: Fields, mean_active: Tensor | None) -> DictionaryNote:
    n = entry.count("n_features", least=1, most=MOST_FEATURES)
    labels = entry.named_counts("labels")
    if mean_active is not None and (mean_active.shape != (n,) or mean_active.dtype != torch.float32):
        raise entry.broken("mean_active does not cover the features")
    if any(feature >= n for features in labels.values() for feature in features):
        raise entry.broken("a label names a feature that does not exist")
    return DictionaryNote(
        n,
        entry.count("k", least=1, most=n),
        labels,
        mean_active,
        entry.count("d_model", 0),
        entry.text("called", ""),
        tuple(entry.texts("aliases", [])),
    )


def _frame(entry: Fields, number: int, notes: dict[str, DictionaryNote], tensors: dict[str, Tensor]) -> Frame:
    """Return frame `number`, and remove its tensors from `tensors`."""
    hook_point = entry.text("hook_point")
    if (note := notes.get(hook_point)) is None:
        raise entry.broken(f"a frame refers to the unknown hook point {hook_point!r:.80}")
    grid = tuple(entry.counts("grid"))
    if len(grid) not in (2, 3):
        raise entry.broken("the grid of a frame fits neither an image nor a video")
    return Frame(
        hook_point,
        entry.count("step"),
        entry.count("evaluation"),
        entry.number("sigma"),
        entry.number("timestep"),
        entry.text("role"),
        grid,
        _codes(entry, number, note, grid, tensors),
    )


def _codes(
    entry: Fields, number: int, note: DictionaryNote, grid: tuple[int, ...], tensors: dict[str, Tensor]
) -> Codes:
    """Return the codes [B, T, k] of a frame, and check that T is the number of tokens in its grid."""
    names = ("indices", "values", "scale", "shift")
    indices, values, *undone = (tensors.pop(f"frame.{number}.{name}", None) for name in names)
    if indices is None or values is None:
        raise entry.broken(f"the codes of frame {number} are missing")
    if indices.dtype != torch.int32 or values.dtype != torch.float32 or indices.shape != values.shape:
        raise entry.broken("the codes of a frame have wrong types or shapes")
    if indices.ndim != 3 or tuple(indices.shape[1:]) != (math.prod(grid), note.k):
        raise entry.broken(f"the codes of a frame do not fit its grid of {' by '.join(map(str, grid))}")
    if any(t is not None and (t.shape != indices.shape[:2] or t.dtype != torch.float32) for t in undone):
        raise entry.broken("the scale or shift of a frame does not match its tokens")
    if not len(indices):
        raise entry.broken("a frame has no images")
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= note.n_features):
        raise entry.broken("the codes of a frame name features that do not exist")
    return Codes(indices.to(torch.int64), values, note.n_features, *undone)
