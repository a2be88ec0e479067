"""Fill ComfyUI's uninitialised layers with random weights, for tests that check shapes, not images."""

from __future__ import annotations

import torch


def fill_with_random_weights(module: torch.nn.Module) -> None:
    """Set every parameter to finite values that are the same in every run."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.zero_()
        for child in module.modules():
            if isinstance(child, torch.nn.GroupNorm | torch.nn.LayerNorm) and child.weight is not None:
                child.weight.fill_(1.0)
