"""What recorders wrote down in their last runs, found again by the latents that the runs returned."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ...errors import RevelioError

KEPT_RUNS = 8
KEPT_BYTES = 4 * 1024**3


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class KeptRuns(Generic[T]):
    """The traces of the last runs of one recorded model, each under the latents that the run returned."""

    def __init__(self) -> None:
        self._traces: OrderedDict[str, T] = OrderedDict()
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()

    def keep(self, trace: T, samples: Tensor, denoised: Tensor | None) -> None:
        """Keep a run's trace; the oldest ones go when there are too many."""
        key = _fingerprint(samples)
        with self._lock:
            self._traces.pop(key, None)
            self._traces[key] = trace
            self._names[key] = key
            if denoised is not None:
                self._names[_fingerprint(denoised)] = key
            while len(self._traces) > 1 and self._too_much():
                self._traces.popitem(last=False)
            self._names = {name: key for name, key in self._names.items() if key in self._traces}

    def of(self, samples: Tensor) -> T:
        """The trace of the run that returned `samples` (or whose denoised estimate they are)."""
        with self._lock:
            key = self._names.get(_fingerprint(samples))
            if key is not None:
                return self._traces[key]
            count = len(self._traces)
        if count == 0:
            raise RevelioError(
                "Nothing was recorded yet: connect the Record node's model to the sampler whose latent "
                "comes in here."
            )
        raise RevelioError(
            "This latent does not come straight from a sampler that used the recorded model "
            f"(the last {KEPT_RUNS} runs are kept, fewer if they are large); connect that sampler's "
            "latent output here directly."
        )

    def _too_much(self) -> bool:
        size = sum(trace.nbytes for trace in self._traces.values())
        return len(self._traces) > KEPT_RUNS or size > KEPT_BYTES


def _fingerprint(samples: Tensor) -> str:
    """Names a latent by its values, wherever and in whichever precision of float it is kept."""
    # models of picture and sound put out both in one, which is no tensor itself
    parts = samples.unbind() if getattr(samples, "is_nested", False) else [samples]
    digest = hashlib.sha256()
    for part in parts:
        values = part.detach().to(device="cpu", dtype=torch.float32).contiguous()
        digest.update(repr(tuple(values.shape)).encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
