"""Recording: a model clone that writes down its features while it samples, and where the traces wait."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints import HookPoint
from ..trace import RunRecorder, Trace
from .model_taps import resolve, tap
from .runs import ModelCall, Run
from .sae_files import SAEHandle

KEPT_RUNS = 8
KEPT_BYTES = 4 * 1024**3


class Recorder:
    """Holds the traces of the last runs of one recorded model, each under the latents that the run returned.

    A Record node stays cached while only the seed of a sampler changes, and several samplers may share one
    recorded model. So every run is recorded on its own, and found again by the samples it produced.
    """

    def __init__(self, sae: SAEHandle, hook_point: HookPoint) -> None:
        self._sae = sae
        self._hook_point = hook_point
        self._open: WeakKeyDictionary[Run, RunRecorder] = WeakKeyDictionary()
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()

    def start(self, run: Run) -> None:
        with self._lock:
            self._open[run] = RunRecorder(run.total_steps, run.sigmas)

    def see(self, tokens: Tensor, call: ModelCall, run: Run) -> None:
        """Encode the tokens and note the codes; nothing leaves the device before the run ends."""
        recorder = self._open.get(run)
        if recorder is None:
            return  # the model was called outside a sampling run
        # the SAE is on the same device, unless ComfyUI could not load it there
        tokens = tokens.to(self._sae.dictionary.W_enc.device)
        codes = self._sae.dictionary.encode(tokens, timestep=call.timestep)
        recorder.add(
            self._hook_point.name,
            call.step,
            call.evaluation,
            call.sigma,
            call.timestep,
            call.role,
            call.grid,
            codes,
            call.asked,
        )

    def end(self, run: Run, samples: Tensor | None, denoised: Tensor | None) -> None:
        """Keep the run's trace; an interrupted or failed run (`samples` is None) leaves none."""
        with self._lock:
            recorder = self._open.pop(run, None)
        if recorder is None or samples is None:
            return
        trace = recorder.finish(
            {self._hook_point.name: self._sae.dictionary}, {self._hook_point.name: self._hook_point.aliases}
        )
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

    def trace_of(self, samples: Tensor) -> Trace:
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
            "latent output to Collect directly."
        )

    def _too_much(self) -> bool:
        size = sum(trace.nbytes for trace in self._traces.values())
        return len(self._traces) > KEPT_RUNS or size > KEPT_BYTES


def record(model: ModelPatcher, sae: SAEHandle, hook_point: str = "") -> tuple[ModelPatcher, Recorder]:
    """A clone of `model` that records at `hook_point` (empty: the SAE's own), and its recorder."""
    dictionary = sae.dictionary
    point = resolve(model, hook_point.strip() or dictionary.hook_point, dictionary.d_model, sae.title)
    recorder = Recorder(sae, point)
    clone = tap(
        model,
        point,
        recorder.see,
        captured=dictionary.captured,
        on_start=recorder.start,
        on_end=recorder.end,
        weights=sae.patcher,
    )
    return clone, recorder


def _fingerprint(samples: Tensor) -> str:
    """Names a latent by its values, wherever and in whichever precision of float it is kept."""
    values = samples.detach().to(device="cpu", dtype=torch.float32).contiguous()
    digest = hashlib.sha256(repr(tuple(values.shape)).encode())
    digest.update(values.numpy().tobytes())
    return digest.hexdigest()
