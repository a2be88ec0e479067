"""Dictionary files: exact round trips, and a sentence for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy_revelio import RevelioError, load_dictionary, save_dictionary
from comfy_revelio.dictionary import describe_file

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_in", "b_out")


def _parts(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        return load_file(path), file.metadata()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_everything_survives_a_round_trip(make_dictionary, tmp_path: Path, dtype: torch.dtype) -> None:
    saved = make_dictionary(
        activation="topk_signed", hook_point="output_blocks.1.1", captured="diff", pooling="spatial_mean",
        model_family="sd15", metrics={"fvu": 0.091}, labels={"glasses": [3, 1], "brille 👓": [7]},
    )  # fmt: skip
    path = tmp_path / "sae.safetensors"
    save_dictionary(saved, path, dtype=dtype)
    loaded = load_dictionary(path)
    for name in WEIGHTS:
        assert torch.equal(getattr(loaded, name), getattr(saved, name).to(dtype).float())
    for name in ("mean_active", "rate", "mean_map"):
        assert torch.equal(getattr(loaded.stats, name), getattr(saved.stats, name).to(dtype).float())
    for name in ("k", "activation", "hook_point", "captured", "pooling", "model_family", "metrics", "labels"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert (loaded.d_model, loaded.n_features, loaded.source_format) == (12, 40, "revelio-sae")


def test_concepts_survive_a_round_trip(make_dictionary, concept, tmp_path: Path) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(make_dictionary(concepts={"glasses": concept, "brille 👓": concept}), path)
    loaded = load_dictionary(path)
    assert list(loaded.concepts) == ["glasses", "brille 👓"] == describe_file(path)["concepts"]
    again = loaded.concepts["brille 👓"]
    assert again.features == concept.features
    assert torch.equal(again.amount, concept.amount.half().float())
    assert torch.equal(again.share, concept.share.half().float())
    assert torch.equal(again.reader, concept.reader)


@pytest.mark.parametrize(
    "fault",
    ["no maps", "no names", "one name too few", "twice", "a float", "another size", "no feature", "kinds"],
)
def test_broken_concepts_are_refused(make_dictionary, concept, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(make_dictionary(concepts={"glasses": concept, "hat": concept}), path)
    tensors, metadata = _parts(path)
    config = json.loads(metadata["config"])
    if fault == "no maps":
        del tensors["concepts.share"]
    elif fault == "no names":
        del config["concepts"]
    elif fault == "one name too few":
        config["concepts"] = ["glasses"]
    elif fault == "twice":
        config["concepts"] = ["hat", "hat"]
    elif fault == "a float":
        tensors["concepts.features"] = tensors["concepts.features"].float()
    elif fault == "another size":
        tensors["concepts.share"] = tensors["concepts.share"][..., :4].contiguous()
    elif fault == "kinds":
        tensors["concepts.reader"] = tensors["concepts.reader"][:1].contiguous()
    else:
        tensors["concepts.features"][1, 2] = 40
    save_file(tensors, str(path), metadata=metadata | {"config": json.dumps(config)})
    with pytest.raises(RevelioError, match=r"concept|hat"):
        load_dictionary(path)


def test_a_second_save_is_the_same_file(make_dictionary, tmp_path: Path) -> None:
    one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_dictionary(make_dictionary(), one)
    save_dictionary(load_dictionary(one), two)
    assert one.read_bytes() == two.read_bytes()


def test_loading_options(make_dictionary, tmp_path: Path) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(make_dictionary(hook_point="middle_block.1", stats=None), path)
    half = load_dictionary(path, hook_point="middle_block.2", dtype=torch.float16)
    assert half.hook_point == "middle_block.2" and half.W_enc.dtype == torch.float16
    assert half.stats is None
    assert load_dictionary(path, hook_point="").hook_point == "middle_block.1"


def test_peek_tells_without_reading_tensors(make_dictionary, tmp_path: Path) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(make_dictionary(maps=None, hook_point="layers.4"), path)
    seen = describe_file(path)
    assert (seen["n_features"], seen["d_model"], seen["k"], seen["hook_point"]) == (40, 12, 5, "layers.4")
    assert seen["has_stats"] and not seen["has_maps"]


def test_float16_that_overflows_is_not_written(make_dictionary, tmp_path: Path) -> None:
    dictionary = make_dictionary()
    dictionary.b_out[0] = 1e6
    with pytest.raises(RevelioError, match=r"b_out.*float32"):
        save_dictionary(dictionary, tmp_path / "sae.safetensors")
    assert not list(tmp_path.iterdir())
    save_dictionary(dictionary, tmp_path / "sae.safetensors", dtype=torch.float32)
    assert load_dictionary(tmp_path / "sae.safetensors").b_out[0] == 1e6


def test_wrong_names_and_types_are_refused_when_saving(make_dictionary, tmp_path: Path) -> None:
    with pytest.raises(RevelioError, match="safetensors"):
        save_dictionary(make_dictionary(), tmp_path / "sae.pt")
    with pytest.raises(RevelioError, match="float16 or float32"):
        save_dictionary(make_dictionary(), tmp_path / "sae.safetensors", dtype=torch.int8)


def _drop(name: str):
    return lambda tensors, config: tensors.pop(name)


def _put(name: str, tensor: torch.Tensor):
    return lambda tensors, config: tensors.__setitem__(name, tensor)


def _set(name: str, value: Any):
    return lambda tensors, config: config.__setitem__(name, value)


HEADER_FAULTS = {
    "missing weight": (_drop("b_out"), "b_out"),
    "half of the statistics": (_drop("stats.mean_active"), "incomplete"),
    "an extra tensor": (_put("surprise", torch.zeros(1)), "surprise"),
    "wrong bias": (_put("b_enc", torch.zeros(41)), "b_enc"),
    "transposed decoder": (_put("W_dec", torch.zeros(12, 40)), "W_dec"),
    "flat encoder": (_put("W_enc", torch.zeros(480)), "W_enc"),
    "no features": (_put("W_enc", torch.zeros(0, 12)), "W_enc"),
    "whole numbers": (_put("b_in", torch.zeros(12, dtype=torch.int64)), "I64"),
    "flat maps": (_put("stats.mean_map", torch.zeros(40, 15)), "mean_map"),
    "unknown kind": (_set("kind", "itda"), "itda"),
    "kind of another type": (_set("kind", ["k_sae"]), "kind"),
    "unknown activation": (_set("activation", "gelu"), "gelu"),
    "k too large": (_set("k", 41), "41"),
    "k zero": (_set("k", 0), "k in .* 0"),
    "k true": (_set("k", True), "True"),
    "k text": (_set("k", "5"), "k in .*'5'"),
    "huge metric": (_set("figures", {"fvu": 10**400}), "figures"),
    "metric as text": (_set("figures", {"fvu": "small"}), "figures"),
    "label out of range": (_set("labels", {"hat": [40]}), "hat"),
    "label of text": (_set("labels", {"hat": "40"}), "labels"),
    "hook point number": (_set("hook_point", 3), "hook_point"),
    "entry of the future": (_set("gate", 1), "exactly"),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_faults_in_the_header_are_seen_by_peek_and_load(make_dictionary, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(make_dictionary(), path)
    tensors, metadata = _parts(path)
    config = json.loads(metadata["config"])
    spoil, word = HEADER_FAULTS[fault]
    spoil(tensors, config)
    save_file(tensors, path, {**metadata, "config": json.dumps(config)})
    for read in (describe_file, load_dictionary):
        with pytest.raises(RevelioError, match=word) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["W_enc", "b_in", "stats.mean_map"])
def test_numbers_that_are_not_finite_are_refused(
    make_dictionary, tmp_path: Path, name: str, value: float
) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(make_dictionary(), path)
    tensors, metadata = _parts(path)
    tensors[name].view(-1)[3] = value
    save_file(tensors, path, metadata)
    with pytest.raises(RevelioError, match=f"{name}.*not finite"):
        load_dictionary(path)


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        (None, "layout"),
        ({"format": "something else"}, "layout"),
        ({"format": "revelio-sae"}, "update"),
        ({"format": "revelio-sae", "format_version": "2"}, "update"),
        ({"format": "revelio-sae", "format_version": "1"}, "config"),
        ({"format": "revelio-sae", "format_version": "1", "config": "[]"}, "config"),
        ({"format": "revelio-sae", "format_version": "1", "config": '{"k": NaN}'}, "config"),
        ({"format": "revelio-sae", "format_version": "1", "config": "[" * 100_000}, "config"),
    ],
)
def test_files_of_another_layout_are_refused(
    tmp_path: Path, metadata: dict[str, str] | None, word: str
) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"W_enc": torch.zeros(4, 2)}, path, metadata)
    with pytest.raises(RevelioError, match=word):
        describe_file(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "sae.safetensors"
    torch.save({"W_enc": torch.zeros(4, 2)}, path)
    with pytest.raises(RevelioError, match="not a complete"):
        load_dictionary(path)
