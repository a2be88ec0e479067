"""An oracle at the sampler's side: what a plain hook sees when each conditioning runs alone.

And an SAE whose codes are the activations themselves, so that a trace can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Subject:
    """An architecture in the matrix. latent: (frames,) height, width. element: of the module's tuple.
    first: where the picture's tokens begin in a sequence of so many, of which so many are the picture's.
    """

    point: str
    latent: tuple[int, ...]
    patch: int = 2
    element: int | None = None
    first: Callable[[int, int], int] = lambda total, image: 0


@dataclass(frozen=True)
class Expected:
    """What the oracle saw of one conditioning in one evaluation: tokens [B, T, C] on their grid.

    number: of the evaluation in the run.
    """

    number: int
    role: str
    sigma: float
    grid: tuple[int, ...]
    tokens: Tensor


class Oracle:
    """Runs each conditioning of each evaluation alone, before the sampler runs them together."""

    def __init__(self, model: Any, subject: Subject) -> None:
        self.subject = subject
        self.network = model.model.diffusion_model
        self.module = self.network.get_submodule(subject.point)
        self.seen: list[Expected] = []
        self.evaluations = 0
        self._shape: tuple[int, ...] = ()
        self._output: Any = None

    def __call__(
        self, executor: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, options: Any
    ) -> Any:
        """A CALC_COND_BATCH wrapper; `conds` are the positive and the negative conditionings, or the positive
        ones alone where another node asks for them once more."""
        handles = [
            self.network.register_forward_pre_hook(self._entered),
            self.module.register_forward_hook(self._heard),
        ]
        try:
            for base, entries in zip(("cond", "uncond"), conds, strict=False):
                for number, entry in enumerate(entries or (), start=1):
                    role = base if number == 1 else f"{base}{number}"
                    self._alone(model, entry, x, timestep, options, role)
        finally:
            for handle in handles:
                handle.remove()
        self.evaluations += 1
        return executor(model, conds, x, timestep, options)

    def _alone(self, model: Any, entry: Any, x: Tensor, timestep: Tensor, options: Any, role: str) -> None:
        import comfy.samplers

        told = options["transformer_options"]
        bare = {**options, "transformer_options": {k: v for k, v in told.items() if k != "wrappers"}}
        comfy.samplers.calc_cond_batch(model, [[entry]], x, timestep, bare)
        output = self._output if self.subject.element is None else self._output[self.subject.element]
        patch = self.subject.patch
        grid = tuple(side // patch for side in self._shape[-2:])
        if len(self._shape) == 5 and self._shape[2] > 1:
            grid = (self._shape[2], *grid)
        if output.ndim == 4:
            tokens = output.flatten(2).transpose(1, 2)
        else:
            image = int(torch.tensor(grid).prod())
            first = self.subject.first(output.shape[1], image)
            tokens = output[:, first : first + image]
        self.seen.append(Expected(self.evaluations, role, float(timestep[0]), grid, tokens.clone()))

    def _entered(self, _module: nn.Module, args: Any) -> None:
        self._shape = tuple(args[0].shape)

    def _heard(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._output = output


def mirror(pack: Any, hook_point: Any) -> Any:
    """An SAE whose codes are the activations themselves: a feature for either sign of each number."""
    width = hook_point.width
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    zeros = torch.zeros(width)
    make = pack("comfy_revelio.dictionary")
    weights = (both, torch.zeros(2 * width), both.clone(), zeros, zeros.clone())
    dictionary = make.Dictionary(
        *weights, make.Activation("topk_relu", width), provenance=make.Provenance(hook_point.name)
    )
    return pack("comfy_revelio.host.sae_files").handle(dictionary, "mirror.safetensors")


def compare(trace: Any, want: dict[tuple[str, int, int], Expected]) -> None:
    """Every frame is one conditioning of one evaluation, and none is missing: (role, step, evaluation)."""
    frames = {(frame.role, frame.step, frame.evaluation): frame for frame in trace.frames}
    assert len(frames) == len(trace.frames) and frames.keys() == want.keys()
    for key, expected in want.items():
        frame = frames[key]
        assert frame.grid == expected.grid
        assert frame.sigma == pytest.approx(expected.sigma, rel=1e-5)
        dense = frame.codes.dense()
        width = dense.shape[-1] // 2
        found = dense[..., :width] - dense[..., width:]
        assert found.shape == expected.tokens.shape
        assert (found - expected.tokens).abs().max() <= 1e-4 * expected.tokens.abs().max(), key


def hook_counts(network: nn.Module) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()]
