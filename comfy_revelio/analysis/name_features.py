"""Names for what a trained dictionary has learned, from the prompts that its activations came from.

Above the rooms it joins: training keeps the prompts beside the activations, analysis finds what goes with a
word. Whoever trains calls it before the dictionary is saved.
"""

from __future__ import annotations

from pathlib import Path

from ..dictionary import Dictionary
from ..training.prompt_file import read_prompts
from ..training.shards import ShardSet
from .prompt_labels import concepts_of_prompts, labels_of_prompts

_ROWS_BYTES = 256 * 2**20
"""What the activations may take that labels are found on."""


def name_features(dictionary: Dictionary, data: Path) -> None:
    """Put labels by words, and concepts where there are maps, into a dictionary trained on a folder.

    Does nothing where the harvest wrote down no prompts. Concepts are not made of a dictionary that follows
    the timestep.
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
