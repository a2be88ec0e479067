"""The file of an index: exact again, one feature at a time, and nothing in it is trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from comfy_revelio import RevelioError
from comfy_revelio.analysis.index import (
    FeatureIndex,
    Label,
    dictionary_id,
    index_path,
    read_examples,
    read_head,
    read_index,
    write_index,
)


@pytest.fixture
def index(make_dictionary) -> FeatureIndex:
    """Of 40 features: the first has 3 examples, the last 2, the others none."""
    starts = torch.full((41,), 3)
    starts[0], starts[40] = 0, 5
    return FeatureIndex(
        "middle_block.1",
        dictionary_id(make_dictionary()),
        (3, 5),
        12,
        "12 images",
        starts,
        torch.tensor([5.0, 4.0, 3.0, 9.0, 1.0]),
        torch.tensor([7, 2**40, 0, 3, 4]),
        torch.arange(5, dtype=torch.int32),
        torch.full((5,), 25.0),
        torch.rand(40),
        torch.rand(40),
        torch.rand(40),
        torch.arange(5 * 8 * 8 * 3).reshape(5, 8, 8, 3).to(torch.uint8),
        {0: Label("glasses", 2.5, "captions"), 39: Label("red, round", None, "endpoint")},
    )


def test_read_as_written(index: FeatureIndex, tmp_path: Path) -> None:
    file = tmp_path / "a.index.safetensors"
    write_index(index, file)
    again = read_index(file)
    for name, value in vars(index).items():
        other = getattr(again, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    head = read_head(file)
    assert (head.n_features, head.n_examples, head.crop, head.labels) == (40, 5, 8, index.labels)
    assert [file.name for file in tmp_path.iterdir()] == ["a.index.safetensors"]


def test_one_feature_at_a_time(index: FeatureIndex, tmp_path: Path) -> None:
    file = tmp_path / "a.index.safetensors"
    write_index(index, file)
    head = read_head(file)
    last = read_examples(head, 39)
    assert last.value.tolist() == [9.0, 1.0]
    assert torch.equal(last.crops, index.crops[3:])
    assert read_examples(head, 7).crops.shape == (0, 8, 8, 3)
    write_index(replace(index, crops=None), file)
    bare = read_examples(read_head(file), 0)
    assert (bare.item.tolist(), bare.crops.shape) == ([7, 2**40, 0], (3, 0, 0, 3))
    with pytest.raises(RevelioError, match="no feature 40"):
        read_examples(head, 40)


def test_it_lies_beside_its_dictionary() -> None:
    assert index_path("models/sae/mine.safetensors") == Path("models/sae/mine.index.safetensors")


def test_the_identity_tells_dictionaries_apart(make_dictionary) -> None:
    assert dictionary_id(make_dictionary()) == dictionary_id(make_dictionary())
    others = [make_dictionary(seed=1), make_dictionary(n=41), make_dictionary(k=4)]
    assert len({dictionary_id(one) for one in (make_dictionary(), *others)}) == 4


def _bad_tensors() -> dict[str, Any]:
    return {
        "starts of another type": {"starts": torch.zeros(41)},
        "no features": {"starts": torch.zeros(1, dtype=torch.int64)},
        "fewer values": {"peak": torch.zeros(39)},
        "items of another type": {"item": torch.zeros(5)},
        "crops that are not square": {"crops": torch.zeros(5, 8, 9, 3, dtype=torch.uint8)},
        "crops too large": {"crops": torch.zeros(5, 300, 300, 3, dtype=torch.uint8)},
        "crops of floats": {"crops": torch.zeros(5, 8, 8, 3)},
        "an unknown tensor": {"weights": torch.zeros(3)},
    }


def _bad_configs() -> dict[str, Any]:
    return {
        "a label out of range": {"labels": {"40": ["a", 1.0, "clip"]}},
        "a negative feature": {"labels": {"-1": ["a", 1.0, "clip"]}},
        "a label too long": {"labels": {"1": ["a" * 61, 1.0, "clip"]}},
        "a label of two lines": {"labels": {"1": ["a\nb", 1.0, "clip"]}},
        "an empty label": {"labels": {"1": ["", 1.0, "clip"]}},
        "an unknown way": {"labels": {"1": ["a", 1.0, "magic"]}},
        "a way that is no text": {"labels": {"1": ["a", 1.0, []]}},
        "a score that is no number": {"labels": {"1": ["a", "1", "clip"]}},
        "a score too large for a float": {"labels": {"1": ["a", 10**400, "clip"]}},
        "labels that are a list": {"labels": []},
        "a grid of three": {"grid": [1, 2, 3]},
        "a grid of nothing": {"grid": [0, 5]},
        "items below 0": {"items": -1},
        "a source that is no text": {"source": 3},
        "an entry too much": {"path": "/etc/passwd"},
    }


def _rewrite(file: Path, tensors: dict[str, Any], config: dict[str, Any], **metadata: str) -> None:
    with safe_open(str(file), framework="pt") as old:
        kept = {name: old.get_tensor(name) for name in old.keys()}  # noqa: SIM118
        head = dict(old.metadata())
    head["config"] = json.dumps(json.loads(head["config"]) | config)
    save_file(kept | tensors, file, head | metadata)


@pytest.mark.parametrize("case", [*_bad_tensors(), *_bad_configs()])
def test_hostile_files_are_refused(index: FeatureIndex, tmp_path: Path, case: str) -> None:
    file = tmp_path / "a.index.safetensors"
    write_index(index, file)
    _rewrite(file, _bad_tensors().get(case, {}), _bad_configs().get(case, {}))
    with pytest.raises(RevelioError) as problem:
        read_head(file)
    assert "\n" not in str(problem.value) and str(problem.value).endswith(".")


@pytest.mark.parametrize("starts", [[3, 0], [-1, 3], [0, 6], [2**62, 2**62]])
def test_examples_outside_the_file_are_refused(
    index: FeatureIndex, tmp_path: Path, starts: list[int]
) -> None:
    file = tmp_path / "a.index.safetensors"
    changed = index.starts.clone()
    changed[7:9] = torch.tensor(starts)
    write_index(replace(index, starts=changed), file)
    with pytest.raises(RevelioError, match="out of range"):
        read_examples(read_head(file), 7)
    with pytest.raises(RevelioError, match="out of range"):
        read_index(file)


def test_other_files_are_told_apart(index: FeatureIndex, tmp_path: Path, make_dictionary) -> None:
    from comfy_revelio.dictionary import load_dictionary, save_dictionary

    save_dictionary(make_dictionary(), tmp_path / "sae.safetensors")
    with pytest.raises(RevelioError, match="not a feature index"):
        read_head(tmp_path / "sae.safetensors")
    file = tmp_path / "a.index.safetensors"
    write_index(index, file)
    with pytest.raises(RevelioError):
        load_dictionary(file)  # so that no list of dictionaries shows it
    _rewrite(file, {}, {}, format_version="2")
    with pytest.raises(RevelioError, match="version"):
        read_head(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RevelioError, match="not a complete"):
        read_head(file)
