"""Indexes from harvested activations, and the label command that makes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comfy_revelio import RevelioError
from comfy_revelio.analysis.index import FeatureIndex, IndexBuilder, read_index
from comfy_revelio.analysis.index.endpoint import Endpoint
from comfy_revelio.analysis.labelling import index_of_shards, label_by_endpoint, words_of
from comfy_revelio.cli.main import main
from comfy_revelio.dictionary import Dictionary, load_dictionary, save_dictionary
from comfy_revelio.training import ShardWriter
from comfy_revelio.training.shards import Source

ITEMS, GRID = 20, (3, 5)
TIMES = (25.0, 200.0)


@pytest.fixture
def sae(make_dictionary, tmp_path: Path) -> Dictionary:
    """As it is after it went through its file."""
    save_dictionary(make_dictionary(), tmp_path / "sae.safetensors", dtype=torch.float32)
    return load_dictionary(tmp_path / "sae.safetensors")


@pytest.fixture
def rows(sae: Dictionary) -> torch.Tensor:
    g = torch.Generator().manual_seed(4)
    x = torch.randn(ITEMS, len(TIMES), 15, 12, generator=g)
    x[::2, 1, 6] += 4 * sae.W_enc[11]
    return x


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for item in range(ITEMS):
        pixels = np.full((30, 50, 3), 10 * item, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{item:02}.png")
        words = "a cat, in a hat" if item % 2 == 0 else "a dog"
        (folder / f"{item:02}.txt").write_text(words)
    return folder


@pytest.fixture
def harvested(rows: torch.Tensor, images: Path, tmp_path: Path) -> Path:
    """As `harvest` leaves it: four items take turns, a shard holds six."""
    out = tmp_path / "harvest"
    source = Source("tiny", "middle_block.1", "output", 12, GRID, {"size": "50x30"})
    with ShardWriter(out / "middle_block.1", source, dtype=torch.float32, shard_items=6) as writer:
        for start in range(0, ITEMS, 4):
            for number, time in enumerate(TIMES):
                for item in range(start, start + 4):
                    writer.add(item, time, rows[item, number])
            for item in range(start, start + 4):
                writer.finish_item(item)
    captions = {str(n): (images / f"{n:02}.txt").read_text() for n in range(ITEMS)}
    (out / "prompts.json").write_text(json.dumps(captions))
    return out / "middle_block.1"


def _expected(sae: Dictionary, rows: torch.Tensor, **options: int) -> FeatureIndex:
    captions = {n: "a cat, in a hat" if n % 2 == 0 else "a dog" for n in range(ITEMS)}
    builder = IndexBuilder(sae, captions, GRID, **options)
    for item in range(ITEMS):
        for number, time in enumerate(TIMES):
            builder.see(item, time, rows[item, number])
        builder.close(item, torch.full((30, 50, 3), 10 * item / 255))
    return builder.finish("")


def _same(one: FeatureIndex, other: FeatureIndex) -> None:
    for name in ("starts", "value", "item", "token", "timestep", "peak", "rate", "crops"):
        assert torch.allclose(getattr(one, name).float(), getattr(other, name).float(), atol=1e-5), name
    assert one.labels == other.labels


def test_shards_give_what_the_rows_give(
    sae: Dictionary, rows: torch.Tensor, harvested: Path, images: Path
) -> None:
    calls: list[tuple[int, int]] = []
    index = index_of_shards(
        sae, harvested, images, top=3, crop=8, progress=lambda *counts: calls.append(counts)
    )
    _same(index, _expected(sae, rows, top=3, crop=8))
    assert calls == [(n, ITEMS) for n in range(1, ITEMS + 1)]
    assert index.labels[11].text in ("cat", "hat")
    bare = index_of_shards(sae, harvested)
    assert bare.crops is None and bare.labels == index.labels


def test_what_does_not_fit_is_refused(
    sae: Dictionary, harvested: Path, images: Path, make_dictionary, tmp_path: Path
) -> None:
    with pytest.raises(RevelioError, match=r"8 wide.*12"):
        index_of_shards(make_dictionary(d=8), harvested)
    (images / "19.png").unlink()
    with pytest.raises(RevelioError, match="no image number 19"):
        index_of_shards(sae, harvested, images)
    with pytest.raises(RevelioError, match="no crops"):
        label_by_endpoint(index_of_shards(sae, harvested), Endpoint("http://127.0.0.1:9/v1", "seer"), 3)


def test_the_command(
    sae: Dictionary, rows: torch.Tensor, harvested: Path, images: Path, tmp_path: Path, capsys
) -> None:
    file, size = tmp_path / "sae.safetensors", (tmp_path / "sae.safetensors").stat().st_size
    command = ["label", str(file), "--data", str(harvested), "--images", str(images), "--top", "3"]
    assert main([*command, "--crop", "8", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["pictures"] == ITEMS and found["features"] == 40
    assert found["labels"]["11"][2] == "captions"
    assert "20/20" in printed.err
    index = read_index(tmp_path / "sae.index.safetensors")
    _same(index, _expected(sae, rows, top=3, crop=8))
    assert file.stat().st_size == size
    assert main([*command[:4], "--out", str(tmp_path / "other.safetensors")]) == 0
    assert "| #11" in capsys.readouterr().out


def test_asking_an_endpoint_from_the_command(
    harvested: Path, sae: Dictionary, images: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    """New labels for an index that is there; the key comes from the environment."""
    asked: list[tuple[Endpoint, int]] = []

    def ask(endpoint: Endpoint, crops: torch.Tensor) -> str:
        asked.append((endpoint, len(crops)))
        return "" if len(asked) == 2 else f"thing {len(asked)}"

    monkeypatch.setattr("comfy_revelio.analysis.labelling.ask", ask)
    monkeypatch.setenv("MY_KEY", "secret")
    file = str(tmp_path / "sae.safetensors")
    assert main(["label", file, "--data", str(harvested), "--images", str(images), "--crop", "8"]) == 0
    before = read_index(tmp_path / "sae.index.safetensors")
    capsys.readouterr()
    options = ["--by", "endpoint", "--endpoint", "http://here/v1", "--model", "seer", "--most", "3", "--json"]
    assert main(["label", file, *options, "--key-from", "MY_KEY"]) == 0
    after = read_index(tmp_path / "sae.index.safetensors")
    assert [(e.key, e.model) for e, _ in asked] == [("secret", "seer")] * 3
    first, second, third = before.peak.argsort(descending=True)[:3].tolist()
    assert (after.labels[first].text, after.labels[third].text) == ("thing 1", "thing 3")
    assert after.labels.get(second) == before.labels.get(second)
    assert "secret" not in capsys.readouterr().out
    assert main(["label", file, *options, "--key-from", "NO_KEY"]) == 2
    assert "NO_KEY is not set" in capsys.readouterr().err


def test_bad_input_is_one_sentence_and_exit_code_2(
    harvested: Path, sae: Dictionary, make_dictionary, tmp_path: Path, capsys
) -> None:
    file = str(tmp_path / "sae.safetensors")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    cases = (
        ([file], "nothing to index"),
        ([str(tmp_path / "none.safetensors"), "--data", str(harvested)], "no file"),
        ([file, "--data", str(tmp_path)], "manifest"),
        ([file, "--data", str(harvested), "--images", str(tmp_path / "x")], "no folder"),
        ([file, "--data", str(harvested), "--prompts", str(empty)], "not both"),
        ([file, "--prompts", str(empty)], "is empty"),
        ([file, "--data", str(harvested), "--top", "100"], "1 to 64 examples"),
        ([file, "--data", str(harvested), "--out", "x.pt"], "must end in .safetensors"),
        ([file, "--by", "clip"], "need --clip"),
        ([file, "--by", "clip", "--clip", str(tmp_path)], "need --words"),
        ([file, "--by", "endpoint"], "must be an address"),
        ([file, "--by", "endpoint", "--endpoint", "http://a/v1"], "name of a model"),
        ([file, "--by", "endpoint", "--endpoint", "http://a/v1", "--model", "m"], "no file"),
    )
    for arguments, message in cases:
        assert main(["label", *arguments]) == 2, arguments
        printed = capsys.readouterr()
        assert message in printed.err and printed.err.count("\n") == 1, printed.err
    main(["label", file, "--data", str(harvested)])
    save_dictionary(make_dictionary(seed=5), file)
    capsys.readouterr()
    options = ["--by", "endpoint", "--endpoint", "http://a/v1", "--model", "m"]
    assert main(["label", file, *options]) == 2
    assert "belongs to another dictionary" in capsys.readouterr().err


def test_labels_by_clip_are_the_nearest_words(
    harvested: Path, sae: Dictionary, images: Path, tmp_path: Path
) -> None:
    """A CLIP with random weights, but the real classes: scores as computed by hand from its embeddings."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    from comfy_revelio.analysis.index.clip import clip_labels

    torch.manual_seed(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(vocabulary), "bos_token_id": 52, "eos_token_id": 53}
    config = CLIPConfig(
        text_config=text, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8
    )
    processor = CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}), tokenizer
    )
    folder = tmp_path / "clip"
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    index = index_of_shards(sae, harvested, images, top=3, crop=8)
    noisy = replace(index, crops=torch.randint(0, 255, index.crops.shape, dtype=torch.uint8))
    words = ["hat", "cat", "dog", "red"]
    found = clip_labels(noisy, folder, words)
    likeness = []
    used = [f for f in range(40) if index.starts[f + 1] > index.starts[f]]
    for feature in used:
        crops = list(noisy.crops[noisy.examples(feature)].numpy())
        given = processor(
            text=[f"a picture of {word}" for word in words], images=crops, return_tensors="pt", padding=True
        )
        with torch.no_grad():
            out = model(**given)
        likeness.append((out.image_embeds @ out.text_embeds.T).mean(0))
    scores = torch.stack(likeness)
    scores = (scores - scores.mean(0)) / scores.std(0)
    expected = {
        feature: words[int(row.argmax())] for feature, row in zip(used, scores, strict=True) if row.max() >= 2
    }
    assert expected and {feature: label.text for feature, label in found.items()} == expected
    with pytest.raises(RevelioError, match="not a CLIP model"):
        clip_labels(noisy, tmp_path / "nowhere", words)
    with pytest.raises(RevelioError, match="needs words"):
        clip_labels(noisy, folder, [" "])
    with pytest.raises(RevelioError, match="no crops"):
        clip_labels(replace(index, crops=None), folder, words)


def test_words_to_choose_from() -> None:
    assert words_of(["a red hat", "a hat, blue", "the hat"])[0] == "hat"
