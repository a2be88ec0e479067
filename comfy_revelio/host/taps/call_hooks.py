"""The hooks of one model call: the tokens at a hook point are shown to a callback, and what it adds is added.

They are registered on the network that is about to run and removed when it has run, also when it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint, TokenGrid
from .runs import ModelCall, Run, roles_of_chunks

RUN = "revelio_run"  # the Run, in a sampling run's transformer options

# callback(tokens [B, T, C], call, run) -> what to add to them [B or 1, T, C], or None
TokenCallback = Callable[[Tensor, ModelCall, Run], Tensor | None]


def network_of(base_model: Any) -> nn.Module:
    """The diffusion network of a ComfyUI BaseModel, without the wrapper that torch.compile puts around it."""
    network = base_model.diffusion_model
    return getattr(network, "_orig_mod", network)


@contextmanager
def hooked(
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
    map_size: list[int] = []  # inside a transformer of a UNet, which lays its map out as a sequence

    def around(_module: nn.Module, args: tuple[Any, ...]) -> None:
        map_size[:] = args[0].shape[2:]

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = input_of(hook_point, args, kwargs)
        inputs[:] = [] if first is None else [first.detach().clone()]  # a block may add to its input in place

    def after(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        told = kwargs.get("transformer_options")
        if isinstance(told, dict) and told.get("img_slice"):
            seen["ahead"] = int(told["img_slice"][0])
        several = isinstance(output, tuple | list)
        own = output[hook_point.element] if several and hook_point.element < len(output) else output
        taken = inputs.pop() if inputs else None
        _check_activation(own, taken, captured, hook_point)

        def place(activation: Tensor) -> TokenGrid:
            return hookpoints.locate_tokens(activation, hook_point.layout, latent, seen, map_size)

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
        for path in hook_point.layout.counted_modules:
            if (other := part_of(network, path)) is not None:
                handles.append(other.register_forward_hook(torch.compiler.disable(witness(path))))
        owner, _, inside = hook_point.module_path.rpartition(".transformer_blocks.")
        if inside and hook_point.stage == "unet" and (other := part_of(network, owner)) is not None:
            handles.append(other.register_forward_pre_hook(torch.compiler.disable(around)))
        if captured == "diff":
            handles.append(module.register_forward_pre_hook(torch.compiler.disable(before), with_kwargs=True))
        handles.append(module.register_forward_hook(torch.compiler.disable(after), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_of(hook_point: HookPoint, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The input that the hook point's output continues, or the module's first tensor."""
    keyword, position = hook_point.input
    named = kwargs.get(keyword, args[position] if position < len(args) else None)
    if isinstance(named, Tensor):
        return named
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def part_of(network: nn.Module, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:  # a part that only some models of a family have
        return None


def no_difference(hook_point: HookPoint) -> RevelioError:
    return RevelioError(
        f"This SAE reads output minus input, but the input of {hook_point.name} has another shape than its "
        "output; use the hook point that the SAE was trained on."
    )


def _check_activation(output: Any, taken: Tensor | None, captured: str, hook_point: HookPoint) -> None:
    if not isinstance(output, Tensor):
        raise RevelioError(
            f"{hook_point.name} of this model puts out no tensor, so nothing can be read there; choose "
            "another hook point."
        )
    if captured == "diff" and (taken is None or taken.shape != output.shape):
        raise no_difference(hook_point)


def _visit(
    output: Tensor,
    before: Tensor | None,
    base_model: Any,
    callback: TokenCallback,
    options: Mapping[str, Any],
    place: Callable[[Tensor], TokenGrid],
    tap_id: object,
) -> Tensor | None:
    """Show each conditioning's rows to the callback; the changed output, or None when nothing changed.

    output: a map or a sequence whose rows are chunks * B. `before`: the module's input when the tap reads the
    difference; the change is added to the output all the same. place: finds the tokens in it.
    """
    run = options.get(RUN) or loose_run(options)
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
        items = tuple(range(rows))
        call = ModelCall(role, step, evaluation, sigma, timestep, percent, where.grid, items, run.asked)
        change = callback(where.tokens(activation), call, run)
        if change is None:
            continue
        if result is None:
            result = output.clone()
        where.add(result[part], change)
    return result


def loose_run(options: Mapping[str, Any]) -> Run:
    """A run for a model that is called outside a guider: the schedule is whatever the options hold."""
    sigmas = options.get("sample_sigmas")
    return Run(() if sigmas is None else tuple(sigmas.flatten().tolist()))
