"""Features get the names of the words in the prompts that their activations came from."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from comfy_revelio.analysis.name_features import name_features
from comfy_revelio.dictionary import Activation, Dictionary
from comfy_revelio.training import ShardWriter
from comfy_revelio.training.shards import Source


def activations(folder: Path, *, prompts: bool) -> Path:
    """Maps of 2 by 3 cells and width 4: dimension 1 is high in the images with a hat."""
    g = torch.Generator().manual_seed(0)
    data = folder / "middle_block.1"
    with ShardWriter(data, Source("m", "middle_block.1", "output", 4, (2, 3)), dtype=torch.float32) as writer:
        for item in range(20):
            rows = torch.rand(6, 4, generator=g) * 0.1
            rows[:, 1] += float(item % 2)
            writer.add(item, 500.0, rows)
            writer.finish_item(item)
    if prompts:
        table = {str(item): "a cat, hat" if item % 2 else "a cat" for item in range(20)}
        (folder / "prompts.json").write_text(json.dumps(table))
    return data


def unit_dictionary() -> Dictionary:
    return Dictionary(
        torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4), torch.zeros(4), Activation("topk_relu", 4)
    )


def test_a_word_names_the_feature_that_goes_with_it(tmp_path: Path) -> None:
    dictionary = unit_dictionary()
    name_features(dictionary, activations(tmp_path, prompts=True))
    assert dictionary.labels["hat"][0] == 1
    assert "cat" not in dictionary.labels  # all prompts say it
    assert 1 in dictionary.concepts["hat"].features


def test_without_prompts_there_are_no_names(tmp_path: Path) -> None:
    dictionary = unit_dictionary()
    name_features(dictionary, activations(tmp_path, prompts=False))
    assert (dictionary.labels, dictionary.concepts) == ({}, {})
