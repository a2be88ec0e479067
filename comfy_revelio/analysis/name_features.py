"""Add labels and concepts to a trained dictionary, from the prompts of the harvested activations."""

from __future__ import annotations

from pathlib import Path

from ..dictionary import Dictionary
from ..training.prompt_file import read_prompts
from ..training.shards import ShardSet
from .prompt_labels import concepts_of_prompts, labels_of_prompts

_ROWS_BYTES = 256 * 2**20
"""Maximum memory for the activations from which labels are found."""


def name_features(dictionary: Dictionary, data: Path) -> None:
    """Add labels, and concepts if the activations have a grid, to a dictionary trained on the folder `data`.

    Does nothing if the harvest recorded no prompts. Dictionaries that depend on the timestep get no concepts.
    """
    prompts = read_prompts(data.parent)
    if not prompts:
        return
    shards = ShardSet(data)
    rows = shards.split(0.0)[0].all(limit=max(1, _ROWS_BYTES // (4 * shards.d_model)))
    steady = dictionary.modulation is None
    dictionary.labels = labels_of_prompts(
        dictionary, rows.x, rows.item, prompts, timesteps=None if steady else rows.timestep
    )
    if steady and shards.source.grid is not None:
        words = list(dictionary.labels)
        dictionary.concepts = concepts_of_prompts(
            dictionary, lambda: ((part.x, part.item) for part in shards.maps()), prompts, words
        )
