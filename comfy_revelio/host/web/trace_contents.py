"""Build the routes' replies about one trace: names and sizes for JSON, codes and maps as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from ...analysis.index import IndexHead, read_examples
from ...analysis.presence import concept_presence, nearest_features
from ...dictionary import Dictionary
from ...errors import RevelioError
from ...files import tensor_file
from ...trace import Trace
from ...trace.by_feature import LEVELS, by_feature
from .trace_registry import GONE, Known

_TINY = 1e-30


def describe(key: str, trace: Trace, dictionaries: Known, indexes: Mapping[str, IndexHead]) -> dict[str, Any]:
    """Return the names and sizes (no tensors) that a page needs before it requests codes.

    "missing" is advice for the user if a hook point's dictionary has been freed, else "".
    """
    hook_points = []
    for name in trace.hook_points:
        note, roles = trace.dictionaries[name], trace.roles(name)
        dictionary = dictionaries.get(name)
        frames = trace.steps(name, roles[0])
        hook_points.append(
            {
                "name": name,
                "grid": list(frames[0].grid),
                "features": note.n_features,
                "k": note.k,
                "roles": list(roles),
                "steps": [frame.step for frame in frames],
                "items": min(frame.codes.shape[0] for frame in frames),
                "labels": {label: list(features) for label, features in note.labels.items()},
                "concepts": [
                    {"name": concept, "features": list(known.features)}
                    for concept, known in (dictionary.concepts.items() if dictionary else ())
                ],
                "neighbours": dictionary is not None,
                "missing": GONE if name in dictionaries and dictionary is None else "",
                "examples": name in indexes,
                "dictionary": _dictionary_mark(trace, name),
            }
        )
    return {"key": key, "total_steps": trace.total_steps, "sigmas": list(trace.sigmas), "places": hook_points}


def codes(trace: Trace, hook_point: str, role: str, item: int) -> bytes:
    """Return a hook point's codes (`by_feature`) as safetensors, with grid and feature count as metadata."""
    frames = trace.steps(hook_point, role)
    _check_item(trace, item)
    height, width = frames[0].grid
    metadata = {"grid": f"{height}x{width}", "features": str(frames[0].codes.n_features)}
    return tensor_file.to_bytes(by_feature(frames, item), metadata)


def concepts(trace: Trace, dictionary: Dictionary | None, hook_point: str, role: str, item: int) -> bytes:
    """Return how present each concept is (see `concept_presence`), as a safetensors file.

    The presence is maps, int16 [concepts, steps, height, width], multiplied by scale, float32 [concepts].
    """
    frames = trace.steps(hook_point, role)
    _check_item(trace, item)
    height, width = frames[0].grid
    maps = torch.zeros(0, len(frames), height, width)
    if dictionary is not None and dictionary.concepts:
        maps = concept_presence(frames, dictionary, item)
    scale = maps.amax((1, 2, 3)) / LEVELS
    levels = (maps / scale.clamp(min=_TINY)[:, None, None, None]).round()
    tensors = {"maps": levels.to(torch.int16), "scale": scale}
    return tensor_file.to_bytes(tensors, {"grid": f"{height}x{width}"})


def neighbours(dictionary: Dictionary | None, feature: int) -> list[dict[str, float]]:
    """Return the features nearest to `feature`, with their cosines; [] if there is no dictionary."""
    if dictionary is None:
        return []
    return [{"feature": n, "cosine": round(c, 4)} for n, c in nearest_features(dictionary, feature)]


def examples(index: IndexHead, feature: int) -> bytes:
    """Return a feature's top examples as safetensors: crops uint8 [m, side, side, 3], value float32 [m].

    If the feature has a label, the metadata contains label, by, and the label's score, if known.
    """
    found = read_examples(index, feature)
    metadata = {}
    if (label := index.labels.get(feature)) is not None:
        metadata = {"label": label.text, "by": label.by}
        metadata |= {} if label.score is None else {"score": f"{label.score:g}"}
    return tensor_file.to_bytes({"crops": found.crops, "value": found.value}, metadata)


def _check_item(trace: Trace, item: int) -> None:
    if not 0 <= item < trace.batch_size:
        raise RevelioError(f"There is no batch item {item}; choose from 0 to {trace.batch_size - 1}.")


def _dictionary_mark(trace: Trace, name: str) -> str:
    """Return a hash that identifies a dictionary, so that a page can find labels written for it earlier."""
    note = trace.dictionaries[name]
    digest = hashlib.sha256(f"{name} {note.n_features} {note.k}".encode())
    if note.mean_active is not None:
        digest.update(note.mean_active.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
