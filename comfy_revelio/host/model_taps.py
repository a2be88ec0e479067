"""Taps: reading or changing the tokens at one hook point of a diffusion model, for one call at a time.

A tap lives in the wrappers of a ModelPatcher clone. It resolves its module when the model is called,
registers a forward hook, and removes it before the call returns, also when the call fails. So the shared
network carries a hook only while the tapped clone itself is running, and no other branch can meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher, create_model_options_clone
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from .. import hookpoints
from ..errors import RevelioError
from ..hookpoints import HookPoint, Place
from ..hookpoints.text import is_layer
from .runs import ModelCall, Run, roles_of_chunks

KEY = "revelio"
RUN = "revelio_run"
NAMED = 6  # hook points that a message lists

# callback(tokens [B, T, C], call, run) -> what to add to them [B or 1, T, C], or None
TokenCallback = Callable[[Tensor, ModelCall, Run], Tensor | None]


def tap(
    model: ModelPatcher,
    hook_point: HookPoint,
    callback: TokenCallback,
    *,
    captured: str = "output",
    on_start: Callable[[Run], None] | None = None,
    on_end: Callable[[Run, Tensor | None, Tensor | None], None] | None = None,
    weights: ModelPatcher | None = None,
) -> ModelPatcher:
    """A clone of `model` that shows the tokens at `hook_point` to `callback` in every model call.

    callback(tokens [B, T, C], call, run) is asked once per conditioning in the batch, with the tokens of the
    hook point's own stream: no text beside a picture, no padding, no reference pictures. It returns what to
    add to them, [B or 1, T, C] of any float type, or None to leave the output untouched, bit for bit. The
    tokens may be the model's own memory, which later blocks write to: copy what is to be kept.
    captured: "output" shows the module's output; "diff" shows output minus input, in float32.
    on_start(run) and on_end(run, samples, denoised) frame every sampling run; both tensors are None when the
    run failed, and `denoised` is the sampler's last estimate where the sampler reports one.
    weights: the SAE's own ModelPatcher, to be loaded together with the model.
    """
    tap_id = object()

    def around_run(executor: Any, *args: Any, **kwargs: Any) -> Any:
        return _sample_as_run(executor, args, kwargs, on_start, on_end)

    def around_call(executor: Any, *args: Any, **kwargs: Any) -> Any:
        options = _transformer_options(args, kwargs)
        if options is None:
            return executor(*args, **kwargs)
        latent = kwargs["x"] if "x" in kwargs else args[0]
        with _hooked(executor.class_obj, hook_point, callback, captured, options, latent.shape, tap_id):
            return executor(*args, **kwargs)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_run)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, around_call)
    if weights is not None:
        carry(clone, weights)
    return clone


def carry(model: ModelPatcher, weights: ModelPatcher) -> None:
    """Make `weights` load and offload together with `model`; each network only once."""
    carried = list(model.get_additional_models_with_key(KEY))
    if all(other.model is not weights.model for other in carried):
        model.set_additional_models(KEY, [*carried, weights])


def network_of(base_model: Any) -> nn.Module:
    """The diffusion network of a ComfyUI BaseModel, without the wrapper that torch.compile puts around it."""
    network = base_model.diffusion_model
    return getattr(network, "_orig_mod", network)


def resolve(model: ModelPatcher, name: str, width: int, title: str) -> HookPoint:
    """The hook point called `name` in `model`, for an SAE of `width` that messages call `title`."""
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
    """Some names of hook points of this width, for a message."""
    try:
        names = [point.name for point in hookpoints.list(network) if point.width == width]
    except RevelioError:  # of no known family and without lists of blocks
        names = []
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "") if names else "none"


def _sample_as_run(
    executor: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    on_start: Callable[[Run], None] | None,
    on_end: Callable[[Run, Tensor | None, Tensor | None], None] | None,
) -> Any:
    """Run the sampler with a `Run` in its options; every tap of the model shares the same one."""
    guider = executor.class_obj
    original = guider.model_options
    run = original.get("transformer_options", {}).get(RUN)
    if run is None:
        sigmas = kwargs["sigmas"] if "sigmas" in kwargs else args[3]
        run = Run(tuple(sigmas.flatten().tolist()), lambda: guider.conds)
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
    """Listen to the sampler's step callback, which alone knows the denoised estimate of custom samplers."""
    original = kwargs["callback"] if "callback" in kwargs else (args[5] if len(args) > 5 else None)

    def callback(step: int, x0: Tensor, x: Tensor, total: int) -> Any:
        denoised[:] = [x0]
        return original(step, x0, x, total) if original is not None else None

    if "callback" in kwargs or len(args) <= 5:
        return args, {**kwargs, "callback": callback}
    return (*args[:5], callback, *args[6:]), kwargs


def _transformer_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any] | None:
    options = kwargs.get("transformer_options")
    if options is not None:
        return options
    return next((arg for arg in args if isinstance(arg, dict) and "cond_or_uncond" in arg), None)


@contextmanager
def _hooked(
    base_model: Any,
    hook_point: HookPoint,
    callback: TokenCallback,
    captured: str,
    options: Mapping[str, Any],
    latent: Sequence[int],
    tap_id: object,
) -> Iterator[None]:
    """The hooks of one model call on the network that is about to run, removed when it has run.

    latent: shape of the model's input, all conditionings of the call together.
    """
    network = network_of(base_model)
    module = hookpoints.module_of(network, hook_point)
    inputs: list[Tensor] = []
    seen: dict[str, int] = {}

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = _input(hook_point, args, kwargs)
        inputs[:] = [] if first is None else [first.detach().clone()]  # a block may add to its input in place

    def after(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        told = kwargs.get("transformer_options")
        if isinstance(told, dict) and told.get("img_slice"):
            seen["ahead"] = int(told["img_slice"][0])
        several = isinstance(output, tuple | list)
        own = output[hook_point.element] if several and hook_point.element < len(output) else output
        taken = inputs.pop() if inputs else None
        _check_activation(own, taken, captured, hook_point)

        def place(activation: Tensor) -> Place:
            declared = _declared_grid(activation, options) if hook_point.stage == "unet" else None
            return hookpoints.place(activation, hook_point.layout, latent, seen, declared)

        changed = _visit(own, taken, base_model, callback, options, place, tap_id)
        if changed is None or not several:
            return changed
        parts = [changed if number == hook_point.element else part for number, part in enumerate(output)]
        return type(output)(parts)

    def witness(path: str) -> Callable[..., None]:
        def count(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            seen[path] = hookpoints.token_count(output)

        return count

    handles = []
    try:
        for path in hook_point.layout.witnesses:
            if (other := _part_of(network, path)) is not None:
                handles.append(other.register_forward_hook(torch.compiler.disable(witness(path))))
        if captured == "diff":
            handles.append(module.register_forward_pre_hook(torch.compiler.disable(before), with_kwargs=True))
        handles.append(module.register_forward_hook(torch.compiler.disable(after), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _input(hook_point: HookPoint, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The input that the hook point's output continues, or the module's first tensor."""
    keyword, position = hook_point.input
    named = kwargs.get(keyword, args[position] if position < len(args) else None)
    if isinstance(named, Tensor):
        return named
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def _part_of(network: nn.Module, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:  # a part that only some models of a family have
        return None


def _check_activation(output: Any, taken: Tensor | None, captured: str, hook_point: HookPoint) -> None:
    if not isinstance(output, Tensor):
        raise RevelioError(
            f"{hook_point.name} of this model puts out no tensor, so nothing can be read there; choose "
            "another hook point."
        )
    if captured == "diff" and (taken is None or taken.shape != output.shape):
        raise RevelioError(
            f"This SAE reads output minus input, but the input of {hook_point.name} has another shape than "
            "its output; use the hook point that the SAE was trained on."
        )


def _visit(
    output: Tensor,
    before: Tensor | None,
    base_model: Any,
    callback: TokenCallback,
    options: Mapping[str, Any],
    place: Callable[[Tensor], Place],
    tap_id: object,
) -> Tensor | None:
    """Show each conditioning's rows to the callback; the changed output, or None when nothing changed.

    output: a map or a sequence whose rows are chunks * B. `before`: the module's input when the tap reads the
    difference; the change is added to the output all the same. place: finds the tokens in it.
    """
    run = options.get(RUN) or _loose_run(options)
    roles = roles_of_chunks(options, run)
    rows = output.shape[0] // len(roles)
    if rows * len(roles) != output.shape[0]:
        raise RevelioError(
            f"A model call holds {output.shape[0]} rows for {len(roles)} conditionings, which does not "
            "divide; this hook point of this model cannot be tapped."
        )
    sigmas = options["sigmas"]
    sigma = float(sigmas[0])
    step = run.step_of(sigma)
    timestep = run.timestep_of(sigma, sigmas, base_model.model_sampling)
    percent = run.percent_of(sigma, base_model.model_sampling)
    where = place(output)
    result: Tensor | None = None
    for chunk, role in enumerate(roles):
        part = slice(chunk * rows, (chunk + 1) * rows)
        activation = output[part] if before is None else output[part].float() - before[part].float()
        evaluation = run.next_evaluation(tap_id, role, step)
        call = ModelCall(role, step, evaluation, sigma, timestep, percent, where.grid, tuple(range(rows)))
        change = callback(where.tokens(activation), call, run)
        if change is None:
            continue
        if result is None:
            result = output.clone()
        where.add(result[part], change)
    return result


def _loose_run(options: Mapping[str, Any]) -> Run:
    """A run for a model that is called outside a guider: the schedule is whatever the options hold."""
    sigmas = options.get("sample_sigmas")
    return Run(() if sigmas is None else tuple(sigmas.flatten().tolist()))


def _declared_grid(activation: Tensor, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of a sequence's tokens, from what the UNet says about the block that is running."""
    shape = options.get("activations_shape")
    if activation.ndim != 3 or shape is None or len(shape) < 4:
        return None
    height, width = int(shape[-2]), int(shape[-1])
    return (height, width) if height * width == activation.shape[1] else None
