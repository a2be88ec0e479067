"""Hooks for one model call: pass a hook point's tokens to a callback, and add the tensor that it returns.

The hooks are registered right before the network runs and removed afterwards, even if the call fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hookpoints
from ...errors import RevelioError
from ...hookpoints import HookPoint
from ...hookpoints.point import Captured
from .runs import ModelCall, Run

RUN = "revelio_run"
"""Key under which the transformer options of a sampling run contain its `Run`."""

TokenCallback = Callable[[Tensor, ModelCall, Run], Tensor | None]
"""callback(tokens [B, T, C], call, run) -> a tensor to add to the tokens, [B or 1, T, C], or None."""


@dataclass(frozen=True, eq=False)
class Tap:
    """A callback and the hook point where it runs in every model call. No two taps are equal."""

    hook_point: HookPoint
    callback: TokenCallback
    captured: Captured = "output"
    """What the callback receives: the module's "output", or "diff" = output - input in float32."""


class CallHooks:
    """The hooks of one tap for one model call: a context, registered on entry and removed on exit."""

    def __init__(
        self, tap: Tap, base_model: Any, options: Mapping[str, Any], latent_shape: Sequence[int]
    ) -> None:
        """options: the transformer options of the model call.
        latent_shape: the shape of the model's input, one batch for all conditionings of the call.
        """
        self._tap = tap
        self._base_model = base_model
        self._options = options
        self._latent_shape = latent_shape
        self._input: Tensor | None = None
        """The hooked module's input, kept only if the tap reads output minus input."""
        self._token_counts: dict[str, int] = {}
        """Number of tokens that each counted module outputs; "ahead": of text before the image."""
        self._map_size: tuple[int, ...] = ()
        """(height, width) of the map before a UNet's transformer flattens it into a sequence."""
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> CallHooks:
        try:
            self._register()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _register(self) -> None:
        point, network = self._tap.hook_point, network_of(self._base_model)
        module = hookpoints.module_of(network, point)
        # appended one by one: if a later hook fails, the earlier ones can be removed
        for handle in count_tokens(network, point.layout.counted_modules, self._token_counts):
            self._handles.append(handle)
        transformer, inside, _ = point.module_path.rpartition(".transformer_blocks.")
        if inside and point.stage == "unet" and (outer := submodule(network, transformer)) is not None:
            self._handles.append(outer.register_forward_pre_hook(torch.compiler.disable(self.around)))
        if self._tap.captured == "diff":
            before = torch.compiler.disable(self.before)
            self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        after = torch.compiler.disable(self.after)
        self._handles.append(module.register_forward_hook(after, with_kwargs=True))

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def around(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        """Store the map size; called before a UNet transformer runs whose block is hooked."""
        self._map_size = tuple(args[0].shape[2:])

    def before(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the module's input; called before the module runs."""
        own = input_of(self._tap.hook_point, args, kwargs)
        self._input = None if own is None else own.detach().clone()  # a block may add to its input in place

    def after(
        self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any | None:
        """Called after the module runs: return a changed output, or None to keep it bit for bit."""
        block_options = kwargs.get("transformer_options")
        if isinstance(block_options, dict) and block_options.get("img_slice"):
            self._token_counts["ahead"] = int(block_options["img_slice"][0])
        element = self._tap.hook_point.element
        several = isinstance(output, tuple | list)
        own = output[element] if several and element < len(output) else output
        before, self._input = self._input, None
        self._check_activation(own, before)
        changed = self._visit(own, before)
        if changed is None or not several:
            return changed
        return type(output)([changed if number == element else part for number, part in enumerate(output)])

    def _check_activation(self, output: Any, before: Tensor | None) -> None:
        point = self._tap.hook_point
        if not isinstance(output, Tensor):
            raise RevelioError(
                f"{point.name} of this model does not output a tensor, so nothing can be read there; choose "
                "another hook point."
            )
        if self._tap.captured == "diff" and (before is None or before.shape != output.shape):
            raise no_difference(point)

    def _visit(self, output: Tensor, before: Tensor | None) -> Tensor | None:
        """Pass the rows of each role to the callback; return the changed output, or None if nothing changed.

        output: a map or a sequence; its rows are those of all conditionings. before: the module's input if
        the tap reads output minus input, else None. Changes are always added to the output.
        """
        run: Run = self._options.get(RUN) or Run.outside_sampler(self._options)
        grid = hookpoints.locate_tokens(
            output, self._tap.hook_point.layout, self._latent_shape, self._token_counts, self._map_size
        )
        result: Tensor | None = None
        for part, call in self._calls(run, len(output), grid.grid):
            activation = output[part] if before is None else output[part].float() - before[part].float()
            change = self._tap.callback(grid.tokens(activation), call, run)
            if change is None:
                continue
            if result is None:
                result = output.clone()
            grid.add(result[part], change)
        return result

    def _calls(self, run: Run, total: int, grid: tuple[int, ...]) -> Iterator[tuple[slice, ModelCall]]:
        """For each conditioning of this call, yield (its rows among the `total` rows, its ModelCall)."""
        roles = run.roles.of_chunks(self._options)
        rows, rest = divmod(total, len(roles))
        if rest:
            raise RevelioError(
                f"The {total} rows of a model call cannot be split evenly among {len(roles)} conditionings; "
                "this hook point of this model cannot be tapped."
            )
        sigmas, sampling = self._options["sigmas"], self._base_model.model_sampling
        sigma = float(sigmas[0])
        step = run.step_of(sigma)
        timestep, percent = run.timestep_of(sigma, sigmas, sampling), run.percent_of(sigma, sampling)
        for chunk, role in enumerate(roles):
            evaluation = run.next_evaluation(self._tap, role, step)
            yield (
                slice(chunk * rows, (chunk + 1) * rows),
                ModelCall(
                    role, step, evaluation, sigma, timestep, percent, grid, tuple(range(rows)), run.prediction
                ),
            )


def network_of(base_model: Any) -> nn.Module:
    """Return the diffusion network of a ComfyUI BaseModel, without torch.compile's wrapper."""
    network = base_model.diffusion_model
    return getattr(network, "_orig_mod", network)


def count_tokens(
    network: nn.Module, paths: Sequence[str], counts: dict[str, int]
) -> Iterator[RemovableHandle]:
    """Hook the modules at `paths` to store how many tokens they output in `counts`; yield the handles."""

    def counting(path: str) -> Callable[..., None]:
        def count(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            counts[path] = hookpoints.token_count(output)

        return count

    for path in paths:
        if (module := submodule(network, path)) is not None:
            yield module.register_forward_hook(torch.compiler.disable(counting(path)))


def submodule(network: nn.Module, path: str) -> nn.Module | None:
    """Return the module at `path`, or None if this model lacks it, as some models of a family do."""
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None


def input_of(hook_point: HookPoint, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the module's input in the hook point's stream, or else its first tensor argument."""
    keyword, position = hook_point.input
    named = kwargs.get(keyword, args[position] if position < len(args) else None)
    if isinstance(named, Tensor):
        return named
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def no_difference(hook_point: HookPoint) -> RevelioError:
    """Return the error for an SAE of output minus input at a hook point whose two shapes differ."""
    return RevelioError(
        f"This SAE reads output minus input, but input and output of {hook_point.name} differ in shape; "
        "use the hook point that the SAE was trained on."
    )
