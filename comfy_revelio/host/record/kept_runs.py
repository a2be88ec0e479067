"""Keep the traces of the last runs and find each trace by the latent that its run returned."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from ...errors import RevelioError
from .latent_fingerprint import latent_fingerprint

KEPT_RUNS = 8
KEPT_BYTES = 4 * 1024**3


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class KeptRuns(Generic[T]):
    """The traces of the last runs of one recorded model."""

    def __init__(self) -> None:
        self._traces: OrderedDict[str, T] = OrderedDict()
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()

    def keep(self, trace: T, samples: Tensor, denoised: Tensor | None) -> None:
        """Keep the trace of the run that returned `samples`; drop the oldest traces if there are too many."""
        key = latent_fingerprint(samples)
        with self._lock:
            self._traces.pop(key, None)
            self._traces[key] = trace
            self._names[key] = key
            if denoised is not None:
                self._names[latent_fingerprint(denoised)] = key
            while len(self._traces) > 1 and self._too_much():
                self._traces.popitem(last=False)
            self._names = {name: key for name, key in self._names.items() if key in self._traces}

    def of(self, samples: Tensor) -> T:
        """Return the trace of the run that returned `samples` as its latent or as its denoised estimate."""
        with self._lock:
            key = self._names.get(latent_fingerprint(samples))
            if key is not None:
                return self._traces[key]
            count = len(self._traces)
        if count == 0:
            raise RevelioError(
                "Nothing was recorded yet: connect the Record node's model to the sampler that makes this "
                "latent."
            )
        raise RevelioError(
            "This latent does not come straight from a sampler that used the recorded model, or its run is "
            f"no longer kept (the last {KEPT_RUNS} runs are, fewer if large). Connect that sampler's "
            "latent output directly to this node, or run it again."
        )

    def _too_much(self) -> bool:
        size = sum(trace.nbytes for trace in self._traces.values())
        return len(self._traces) > KEPT_RUNS or size > KEPT_BYTES
