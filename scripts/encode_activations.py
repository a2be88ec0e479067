"""Load an SAE, encode activations, and see which features are active.

python -m scripts.encode_activations [SAE file or folder, in any layout that docs/formats.md lists]
"""

import sys
from pathlib import Path

import torch

from comfy_revelio import load_dictionary
from comfy_revelio.dictionary import Codes

BUNDLED = Path(__file__).parents[1] / "sae_weights" / "revelio_mini_middle.safetensors"


def main(path: Path) -> None:
    sae = load_dictionary(path)
    print(f"{path.name}: {sae.n_features} features, k {sae.k}, at {sae.hook_point}, width {sae.d_model}")

    # Your code: the output of the module `sae.hook_point`, as tokens [batch, height * width, d_model].
    # Here: one image of 8 x 8 tokens, each the sum of 4 random features.
    chosen = torch.rand(1, 64, sae.n_features, generator=torch.Generator().manual_seed(0)).topk(4).indices
    tokens = sae.decode(Codes(chosen, torch.full(chosen.shape, 20.0), sae.n_features))

    codes = sae.encode(tokens)  # the k strongest features of every token: indices and values [1, 64, k]
    names = {feature: label for label, features in sae.labels.items() for feature in features}
    for feature, value in zip(codes.indices[0, 0, :4].tolist(), codes.values[0, 0, :4], strict=True):
        print(f"token 0: feature {feature} ({names.get(feature, 'no label')}) at {value:.1f}")
    found = (codes.indices[..., None] == chosen[..., None, :]).any(-2).float().mean()
    unexplained = (tokens - sae.decode(codes)).square().sum() / (tokens - tokens.mean(1)).square().sum()
    print(f"features found again: {found:.0%}; explained variance: {1 - unexplained:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLED)
