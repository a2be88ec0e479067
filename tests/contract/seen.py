"""What taps saw in a sampling run, and the run itself, for models without a node around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Seen:
    """What the taps of one model saw: (hook point, role, step) -> tokens and grid."""

    tokens: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)
    grids: dict[str, set[tuple[int, ...]]] = field(default_factory=dict)

    def at(self, name: str) -> Callable[..., None]:
        def look(tokens: Tensor, call: Any, _run: Any) -> None:
            assert (name, call.role, call.step) not in self.tokens
            self.tokens[name, call.role, call.step] = tokens.clone()
            self.grids.setdefault(name, set()).add(call.grid)

        return look


def sample(
    model: Any, latent: Tensor, positive: Any, negative: Any, *, cfg: float, steps: int = 2, more: Any = 0.0
) -> Tensor:
    """more: added to the noise."""
    import comfy.sample

    return comfy.sample.sample(
        model,
        torch.randn(latent.shape, generator=torch.Generator().manual_seed(5)) + more,
        steps,
        cfg,
        "euler",
        "simple",
        positive,
        negative,
        latent,
        disable_pbar=True,
        seed=1,
    )
