"""Keep the traces that the Explorer can show: recent traces in memory, older ones in the temp folder."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from weakref import ReferenceType, ref

import folder_paths

from ...analysis.index import IndexHead
from ...dictionary import Dictionary
from ...errors import RevelioError
from ...trace import Trace

FOLDER = "revelio"
KEPT_IN_MEMORY = 6
KEPT_BYTES = 2 * 1024**3
KEPT_IN_ALL = 24

GONE = (
    "The SAE of this run is no longer in memory; run the workflow again (with --cache-none ComfyUI drops "
    "it after every run)."
)

Known = Mapping[str, Dictionary | None]
"""{hook point: its dictionary, or None if the dictionary has since been freed}."""


@dataclass(eq=False)
class ServedTrace:
    """A trace, a key for it that cannot be guessed, and the dictionaries of its hook points.

    The references to the dictionaries are weak. Otherwise the dictionaries, which are models of a
    ModelPatcher, would occupy GPU memory for as long as the trace is served.
    """

    key: str
    dictionaries: Mapping[str, ReferenceType[Dictionary]]
    trace: Trace | None = field(repr=False)
    """The trace, or None while it is in the temp folder instead of in memory."""
    indexes: Mapping[str, IndexHead] = field(default_factory=dict)
    """{hook point: feature index of its dictionary}."""


class TraceRegistry:
    """The traces that are served. Thread-safe, because nodes add traces while routes read them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, ServedTrace] = OrderedDict()
        self._lock = threading.Lock()

    def show(
        self,
        trace: Trace,
        dictionaries: Mapping[str, Dictionary],
        indexes: Mapping[str, IndexHead] | None = None,
    ) -> str:
        """Serve the trace and return its key. The same objects get the same key again."""
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
        """Return the trace with this key and its dictionaries; raise KeyError if it is no longer served."""
        with self._lock:
            known = self._known[key]
            self._known.move_to_end(key)
            if known.trace is None:
                try:
                    known.trace = Trace.load(_file(key))
                except RevelioError:  # the temp folder was emptied
                    del self._known[key]
                    raise KeyError(key) from None
                self._make_room()
            trace = known.trace
            assert trace is not None
            return trace, {name: reference() for name, reference in known.dictionaries.items()}

    def indexes(self, key: str) -> Mapping[str, IndexHead]:
        """Return the feature indexes of the trace with this key; raise KeyError if there is no such trace."""
        with self._lock:
            return self._known[key].indexes

    def _make_room(self) -> None:
        """Move old traces (never the newest) to the temp folder, and delete the oldest of them."""
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
                except RevelioError:  # a full disk: the trace is lost, and the page reports this
                    del self._known[known.key]
            known.trace = None


SERVED_TRACES = TraceRegistry()
"""The traces that this server serves: a limited number, only from runs with an Explorer node."""


def _file(key: str) -> Path:
    return Path(folder_paths.get_temp_directory()) / FOLDER / f"{key}.safetensors"
