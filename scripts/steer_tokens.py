"""Steer any PyTorch model: a forward hook on one module changes the chosen features and nothing else.

python -m scripts.steer_tokens
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comfy_revelio import load_dictionary, steering

BUNDLED = Path(__file__).parents[1] / "sae_weights" / "revelio_mini_middle.safetensors"


def main() -> None:
    sae = load_dictionary(BUNDLED)
    module = nn.Identity()  # your code: the module of your model that `sae.hook_point` names
    feature = steering.parse_selection("522", sae)
    early = steering.Intervention(sae, feature, strength=2.0, mode="add", end_percent=0.5)

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        """Steer output [batch, tokens, d_model]; apply flatten(2).mT to a map [B, C, H, W], then undo it."""
        context = steering.TokenContext(role="cond", grid=(8, 8), percent=0.25)  # describes this model call
        return steering.apply(output, early, context)

    tokens = torch.randn(1, 64, sae.d_model, generator=torch.Generator().manual_seed(0))
    with module.register_forward_hook(hook):
        change = module(tokens) - tokens
    along = change @ sae.directions([522])[0]
    print(f"change along feature 522: {along.mean():.1f}")
    print(f"change across it: {(change - along[..., None] * sae.directions([522])).norm(dim=-1).max():.1e}")


if __name__ == "__main__":
    main()
