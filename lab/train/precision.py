"""Train in half precision with float32 master weights.

The network computes in bfloat16, which is several times faster than float32 on a GPU and on a CPU with matrix
units. The optimizer and the moving average keep float32 copies.
"""

from __future__ import annotations

import time

import torch
from torch import nn


def quick_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """Return bfloat16 if this device multiplies bfloat16 matrices much faster than float32, else float32."""

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(1024, 1024, device=device, dtype=dtype)
        best = float("inf")
        for _ in range(8):  # take the fastest of several tries, as other programs may be running
            start = time.perf_counter()
            (a @ a).sum().item()
            best = min(best, time.perf_counter() - start)
        return best

    return torch.bfloat16 if seconds(torch.bfloat16) * 1.3 < seconds(torch.float32) else torch.float32


class Masters:
    """Float32 copies of a network's trainable parameters; the network itself becomes bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names = list(trained)
        self.weights = [p.detach().float().clone() for p in trained.values()]
        self.average = [weight.clone() for weight in self.weights]
        network.to(torch.bfloat16)
        self.parameters: list[torch.Tensor] = list(trained.values())

    def collect_gradients(self, limit: float = 1.0) -> None:
        """Move the network's gradients to the float32 weights and clip their norm to `limit`."""
        for weight, parameter in zip(self.weights, self.parameters, strict=True):
            weight.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        nn.utils.clip_grad_norm_([w for w in self.weights if w.grad is not None], limit)

    @torch.no_grad()
    def publish(self, step: int, decay: float = 0.9995) -> None:
        """Update the moving average and copy the new weights to the network; call after an optimizer step."""
        torch._foreach_lerp_(self.average, self.weights, 1 - min(decay, step / (step + 10)))
        torch._foreach_copy_(self.parameters, self.weights)

    def averaged(self) -> dict[str, torch.Tensor]:
        """Return the moving average of each weight by parameter name, float32."""
        return dict(zip(self.names, self.average, strict=True))

    def state(self) -> dict[str, list[torch.Tensor]]:
        return {"weights": self.weights, "average": self.average}

    @torch.no_grad()
    def restore(self, state: dict[str, list[torch.Tensor]]) -> None:
        torch._foreach_copy_(self.weights, state["weights"])
        torch._foreach_copy_(self.average, state["average"])
        torch._foreach_copy_(self.parameters, self.weights)
