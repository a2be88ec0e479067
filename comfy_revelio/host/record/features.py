"""Record Features: clone a model so that it records the features that fire while it samples."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

from torch import Tensor

from ...hookpoints import HookPoint
from ...trace import Frame, RunRecorder, Trace
from ..comfy_types import Model
from ..sae_files import SAEHandle
from ..taps.model import resolve, tap
from ..taps.runs import ModelCall, Run
from .kept_runs import KeptRuns


class Recorder:
    """Records every run of one model; `trace_of` finds a run's trace by the latent that the run returned.

    Every run gets its own trace, because one recorded model may serve many runs: several samplers can share
    it, and ComfyUI does not run a Record node again if only a sampler's seed changes.
    """

    def __init__(self, sae: SAEHandle, hook_point: HookPoint) -> None:
        self._sae = sae
        self._hook_point = hook_point
        self._open: WeakKeyDictionary[Run, RunRecorder] = WeakKeyDictionary()
        self._kept: KeptRuns[Trace] = KeptRuns()
        self._lock = threading.Lock()

    def start(self, run: Run) -> None:
        """Begin the trace of a run."""
        with self._lock:
            self._open[run] = RunRecorder(run.total_steps, run.sigmas)

    def see(self, tokens: Tensor, call: ModelCall, run: Run) -> None:
        """Encode the tokens and keep their codes, on the model's device until the run ends."""
        recorder = self._open.get(run)
        if recorder is None:
            return  # the model was called outside a sampling run
        # the SAE is on the model's device unless ComfyUI could not load it there
        tokens = tokens.to(self._sae.dictionary.W_enc.device)
        codes = self._sae.dictionary.encode(tokens, timestep=call.timestep)
        recorder.add(
            Frame(
                self._hook_point.name,
                call.step,
                call.evaluation,
                call.sigma,
                call.timestep,
                call.role,
                call.grid,
                codes,
            ),
            call.prediction,
        )

    def end(self, run: Run, samples: Tensor | None, denoised: Tensor | None) -> None:
        """Keep the run's trace, unless the run was interrupted or failed (`samples` is None)."""
        with self._lock:
            recorder = self._open.pop(run, None)
        if recorder is None or samples is None:
            return
        point = self._hook_point
        trace = recorder.finish({point.name: self._sae.dictionary}, {point.name: point.aliases})
        self._kept.keep(trace, samples, denoised)

    def trace_of(self, samples: Tensor) -> Trace:
        """Return the trace of the run that returned `samples` as its latent or as its denoised estimate."""
        return self._kept.of(samples)


def record(model: Model, sae: SAEHandle, hook_point: str = "") -> tuple[Model, Recorder]:
    """Return (a clone of `model` that records at `hook_point`, its recorder); "" means the SAE's."""
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
