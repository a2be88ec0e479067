"""Taps on a model: clone a MODEL so that it reads or changes the tokens at one hook point in every call.

A tap consists of three wrappers on a MODEL clone. In every model call it registers forward hooks on the
network and removes them before the call returns, even if the call fails. The network is
shared with other branches of the workflow, but it has hooks only while the tapped clone itself runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint
from ...hookpoints.point import Captured
from ...hookpoints.text_encoders import is_layer
from ..comfy_types import Model
from .call_hooks import RUN, CallHooks, Tap, TokenCallback, network_of, no_difference
from .runs import Run

__all__ = [
    "KEY",
    "RUN",
    "TokenCallback",
    "network_of",
    "resolve",
    "sample_as_run",
    "tap",
    "transformer_options",
]

KEY = "revelio"
"""Key under which the pack adds its wrappers and SAE weights to a MODEL."""
MOST_NAMED = 6
"""The largest number of hook points that an error message lists."""

OnStart = Callable[[Run], None]
OnEnd = Callable[[Run, Tensor | None, Tensor | None], None]
"""on_end(run, samples, denoised) runs after sampling; both tensors are None if the run failed."""


def tap(
    model: Model,
    hook_point: HookPoint,
    callback: TokenCallback,
    *,
    captured: Captured = "output",
    on_start: OnStart | None = None,
    on_end: OnEnd | None = None,
    weights: Model | None = None,
) -> Model:
    """Return a clone of `model` that passes the tokens at `hook_point` to `callback` in every model call.

    callback(tokens [B, T, C], call, run) runs once per conditioning in the batch. `tokens` are those of the
    hook point's own stream: for an image, no text, padding or reference images. The callback returns a
    tensor to add to the tokens, [B or 1, T, C] of any float type, or None to leave the output bit for bit
    as it was. Later blocks may overwrite the memory of `tokens`: copy them to keep them.
    captured: "output" passes the module's output; "diff" passes output minus input, in float32.
    on_start(run) and on_end(run, samples, denoised) are called before and after every sampling run;
    `denoised` is the sampler's last estimate, if the sampler reports one.
    weights: the SAE's ModelPatcher, to be loaded together with the model.
    Raises RevelioError for "diff" at a hook point that does not support it.
    """
    if captured not in hook_point.captured:
        raise no_difference(hook_point)
    tapped = Tap(hook_point, callback, captured)

    def around_run(executor: Any, *args: Any, **kwargs: Any) -> Any:
        return sample_as_run(executor, args, kwargs, on_start, on_end)

    def around_prediction(executor: Any, *args: Any, **kwargs: Any) -> Any:
        run = executor.class_obj.model_options.get("transformer_options", {}).get(RUN)
        with run.predicting() if run is not None else nullcontext():
            return executor(*args, **kwargs)

    def around_call(executor: Any, *args: Any, **kwargs: Any) -> Any:
        options = transformer_options(args, kwargs)
        if options is None:
            return executor(*args, **kwargs)
        with CallHooks(tapped, executor.class_obj, options, model_input(args, kwargs).shape):
            return executor(*args, **kwargs)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_run)
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, around_prediction)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, around_call)
    if weights is not None:
        _load_together(clone, weights)
    return clone


def _load_together(model: Model, weights: Model) -> None:
    """Make ComfyUI load and offload `weights` together with `model`, each network only once."""
    carried = list(model.get_additional_models_with_key(KEY))
    if all(other.model is not weights.model for other in carried):
        model.set_additional_models(KEY, [*carried, weights])


def resolve(model: Model, name: str, width: int, title: str) -> HookPoint:
    """Return the hook point `name` for an SAE of width `width`; error messages call the SAE `title`."""
    network = network_of(model.model)
    try:
        hook_point = hookpoints.resolve(network, name)
    except RevelioError:
        if not is_layer(name.strip()):
            raise
        raise RevelioError(
            f"{title} reads a text encoder ({name}), not an image model: use it with Steer Concept, "
            "or choose an SAE of the image model."
        ) from None
    if hook_point.width and hook_point.width != width:
        raise RevelioError(
            f"{title} reads activations of width {width}, but {hook_point.name} of this model has width "
            f"{hook_point.width}; use the model that the SAE was trained on, or a hook point of width "
            f"{width} (here: {_fitting(network, width)})."
        )
    return hook_point


def _fitting(network: nn.Module, width: int) -> str:
    """Return the names of some hook points with this width, as text for an error message."""
    try:
        names = [point.name for point in hookpoints.list(network) if point.width == width]
    except RevelioError:  # a model of an unknown family, whose blocks cannot be listed
        names = []
    return ", ".join(names[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "") if names else "none"


def sample_as_run(
    executor: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    on_start: OnStart | None,
    on_end: OnEnd | None,
) -> Any:
    """Run the sampler with a `Run` in its transformer options; all taps of the model share that `Run`."""
    guider = executor.class_obj
    original = guider.model_options
    run = original.get("transformer_options", {}).get(RUN)
    if run is None:
        sigmas = kwargs["sigmas"] if "sigmas" in kwargs else args[3]
        run = Run(sigmas.flatten().tolist(), lambda: guider.conds)
        guider.model_options = create_model_options_clone(original)
        guider.model_options.setdefault("transformer_options", {})[RUN] = run
    denoised: list[Tensor] = []
    if on_end is not None:
        args, kwargs = _with_listener(args, kwargs, denoised)
    samples = None
    try:
        if on_start is not None:
            on_start(run)
        samples = executor(*args, **kwargs)
        return samples
    finally:
        guider.model_options = original
        if on_end is not None:
            estimate = None
            if samples is not None and denoised:
                estimate = guider.model_patcher.model.process_latent_out(denoised[-1].cpu())
            on_end(run, samples, estimate)


def _with_listener(
    args: tuple[Any, ...], kwargs: dict[str, Any], denoised: list[Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with a step callback that also stores the denoised estimate in `denoised`."""
    original = kwargs["callback"] if "callback" in kwargs else (args[5] if len(args) > 5 else None)

    def callback(step: int, x0: Tensor, x: Tensor, total: int) -> Any:
        denoised[:] = [x0]
        return original(step, x0, x, total) if original is not None else None

    if "callback" in kwargs or len(args) <= 5:
        return args, {**kwargs, "callback": callback}
    return (*args[:5], callback, *args[6:]), kwargs


def model_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the noisy latents of one call of `apply_model`, with all conditionings in one batch."""
    return kwargs["x"] if "x" in kwargs else args[0]


def transformer_options(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the options of one call of `apply_model`, or None for a call without options."""
    options = kwargs.get("transformer_options")
    if options is not None:
        return options
    return next((arg for arg in args if isinstance(arg, dict) and "cond_or_uncond" in arg), None)
