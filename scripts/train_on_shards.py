"""Write activations to disk as shards, train an SAE on them, and load it.

python -m scripts.train_on_shards [folder]
"""

import sys
import tempfile
from pathlib import Path

import torch

from comfy_revelio import load_dictionary
from comfy_revelio.training import ShardWriter, preset
from comfy_revelio.training.shards import Source
from comfy_revelio.training.train_on_shards import train_on_shards

BUNDLED = Path(__file__).parents[1] / "sae_weights" / "revelio_mini_middle.safetensors"


def main(folder: Path) -> None:
    # Your code: activations of your model. Here: sums of 3 of the first 96 features of a bundled SAE.
    atoms, noise = load_dictionary(BUNDLED).directions(range(96)), torch.Generator().manual_seed(0)
    source = Source("made up", "middle_block.1", "output", atoms.shape[1], grid=(8, 8))
    with ShardWriter(folder / "activations", source) as shards:
        for item in range(100):  # an item is one image; a tenth of the items is held out
            active = torch.rand(64, len(atoms), generator=noise).topk(3).indices
            shards.add(item, timestep=500.0, rows=10.0 * atoms[active].sum(1))
            shards.finish_item(item)

    config = preset("topk", atoms.shape[1], n_features=192, k=3, aux_k=16, steps=200, batch=512, warmup=20)
    metrics = train_on_shards(folder / "activations", folder / "my_sae.safetensors", config)
    sae = load_dictionary(folder / "my_sae.safetensors")
    nearest = (sae.directions(range(sae.n_features)) @ atoms.T).amax(0)
    print(f"explained variance on held-out items: {metrics['explained_variance']:.2f}")
    print(f"features found again: {int((nearest > 0.9).sum())} of {len(atoms)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
