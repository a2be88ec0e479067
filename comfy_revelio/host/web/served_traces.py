"""Traces that pages may ask about: the last few in memory, some older ones in ComfyUI's temp folder."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import folder_paths
import torch

from ...analysis.index import IndexHead, read_examples
from ...analysis.presence import concept_presence, nearest_features
from ...dictionary import Dictionary
from ...errors import RevelioError
from ...files import tensor_file
from ...trace import Trace
from ...trace.by_feature import LEVELS, by_feature

FOLDER = "revelio"
KEPT_IN_MEMORY = 6
KEPT_BYTES = 2 * 1024**3
KEPT_IN_ALL = 24

GONE = (
    "The SAE of this run is not in memory any more; run the workflow again (with --cache-none ComfyUI drops "
    "it after every run)."
)

_TINY = 1e-30

Known = Mapping[str, Dictionary | None]
"""Hook point -> the dictionary that is known for it; None where it has been dropped since."""


@dataclass(eq=False)
class ServedTrace:
    """A trace under a key that nobody can guess, and the dictionaries that are known for its hook points.

    They are held weakly: a dictionary is the model of a ModelPatcher, and would keep its GPU memory for as
    long as a page may ask about the trace.
    """

    key: str
    dictionaries: Mapping[str, ReferenceType[Dictionary]]
    trace: Trace | None = field(repr=False)
    """None while it lies in the temp folder."""
    indexes: Mapping[str, IndexHead] = field(default_factory=dict)
    """Feature indexes by hook point."""


class TraceRegistry:
    """Safe to use from several threads: nodes put traces in, routes ask."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, ServedTrace] = OrderedDict()
        self._lock = threading.Lock()

    def show(
        self,
        trace: Trace,
        dictionaries: Mapping[str, Dictionary],
        indexes: Mapping[str, IndexHead] | None = None,
    ) -> str:
        """The key under which pages can ask about the trace; the same as before for the same objects."""
        references = {name: ref(dictionary) for name, dictionary in dictionaries.items()}
        with self._lock:
            asked = (references, dict(indexes or {}))
            for key, known in self._known.items():
                if known.trace is trace and (known.dictionaries, known.indexes) == asked:
                    self._known.move_to_end(key)
                    return key
            key = secrets.token_hex(16)
            self._known[key] = ServedTrace(key, asked[0], trace, asked[1])
            self._make_room()
            return key

    def find(self, key: str) -> tuple[Trace, Known]:
        """What is shown under a key; KeyError when nothing is, or no longer."""
        with self._lock:
            known = self._known[key]
            self._known.move_to_end(key)
            if known.trace is None:
                try:
                    known.trace = Trace.load(_file(key))
                except RevelioError:  # somebody has emptied the temp folder
                    del self._known[key]
                    raise KeyError(key) from None
                self._make_room()
            trace = known.trace
            assert trace is not None
            return trace, {name: reference() for name, reference in known.dictionaries.items()}

    def indexes(self, key: str) -> Mapping[str, IndexHead]:
        """The feature indexes of what is shown under a key; KeyError when nothing is."""
        with self._lock:
            return self._known[key].indexes

    def _make_room(self) -> None:
        """The oldest traces go to the temp folder, and the oldest of those away; the newest always stays."""
        while len(self._known) > KEPT_IN_ALL:
            key, _ = self._known.popitem(last=False)
            _file(key).unlink(missing_ok=True)
        held = [known for known in self._known.values() if known.trace is not None]
        size = sum(known.trace.nbytes for known in held if known.trace)
        for known in held[:-1]:
            if len(held) <= KEPT_IN_MEMORY and size <= KEPT_BYTES:
                break
            assert known.trace is not None
            size -= known.trace.nbytes
            held = held[1:]
            if not _file(known.key).is_file():
                try:
                    known.trace.save(_file(known.key))
                except RevelioError:  # a full disk: then it is gone, which a page tells
                    del self._known[known.key]
            known.trace = None


SERVED_TRACES = TraceRegistry()
"""Those of this server. Bounded, and only of runs whose Explorer node was there to show them."""


def describe(key: str, trace: Trace, dictionaries: Known, indexes: Mapping[str, IndexHead]) -> dict[str, Any]:
    """What a page needs to know before it asks for codes; all names and sizes, no tensors.

    missing: what to do about a dictionary that has been dropped; "" where none has.
    """
    places = []
    for name in trace.hook_points:
        note, roles = trace.dictionaries[name], trace.roles(name)
        dictionary = dictionaries.get(name)
        frames = trace.steps(name, roles[0])
        places.append(
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
                "dictionary": _identity(trace, name),
            }
        )
    return {"key": key, "total_steps": trace.total_steps, "sigmas": list(trace.sigmas), "places": places}


def codes(trace: Trace, hook_point: str, role: str, item: int) -> bytes:
    """The codes of one place as a safetensors file: see `by_feature`; grid and features in its metadata."""
    frames = trace.steps(hook_point, role)
    _check_item(trace, item)
    height, width = frames[0].grid
    metadata = {"grid": f"{height}x{width}", "features": str(frames[0].codes.n_features)}
    return tensor_file.to_bytes(by_feature(frames, item), metadata)


def concepts(trace: Trace, dictionary: Dictionary | None, hook_point: str, role: str, item: int) -> bytes:
    """Presence of every concept as a safetensors file: see `concept_presence`.

    maps: int16 [concepts, steps, height, width], in the order of `describe`; times scale[concept] float32.
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
    """The features most like one, with their cosines; none without a dictionary."""
    if dictionary is None:
        return []
    return [{"feature": n, "cosine": round(c, 4)} for n, c in nearest_features(dictionary, feature)]


def examples(index: IndexHead, feature: int) -> bytes:
    """What a feature fires on most, as a safetensors file: crops uint8 [m, side, side, 3], value float32 [m].

    What the index calls the feature is in the metadata: label, by, and score where there is one.
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


def _identity(trace: Trace, name: str) -> str:
    """Names a dictionary by what the trace knows of it, so that labels written for it are found again."""
    note = trace.dictionaries[name]
    digest = hashlib.sha256(f"{name} {note.n_features} {note.k}".encode())
    if note.mean_active is not None:
        digest.update(note.mean_active.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def _file(key: str) -> Path:
    return Path(folder_paths.get_temp_directory()) / FOLDER / f"{key}.safetensors"
