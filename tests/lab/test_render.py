"""The pictures: deterministic, of the labelled colours, with masks that fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from comfy_revelio.errors import RevelioError
from lab.data import make, render
from lab.data.attributes import ATTRIBUTES, NAMES, STYLES, labels_for, seed_text
from lab.data.drawing import BACKGROUND, options_for

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
REPOSITORY = Path(__file__).resolve().parents[2]


def _find(**wanted: str) -> tuple[dict[str, int], str]:
    """The first avatar of the check namespace with these values."""
    for index in range(20_000):
        labels = labels_for("check", index, split="any")
        if all(labels[name] == ATTRIBUTES[name].index(value) for name, value in wanted.items()):
            return labels, seed_text("check", index)
    raise AssertionError(f"no avatar with {wanted}")


def test_orders_are_deterministic_and_differ_by_seed() -> None:
    labels = labels_for("check", 0)
    assert options_for(labels, "a") == options_for(labels, "a") != options_for(labels, "b")
    json.dumps(options_for(labels, "a"))


@needs_node
def test_the_same_seed_gives_the_same_picture() -> None:
    labels = [labels_for("check", index) for index in range(6)]
    seeds = [seed_text("check", index) for index in range(6)]
    first = render.render(labels, seeds)
    assert first.shape == (6, 128, 128, 3) and first.dtype == np.uint8
    assert np.array_equal(first[3:], render.render(labels[3:], seeds[3:]))
    assert render.render(labels[:1], seeds[:1], size=64).shape == (1, 64, 64, 3)
    assert render.render([], []).shape == (0, 128, 128, 3)


@needs_node
def test_backgrounds_have_the_labelled_colour() -> None:
    labels = [labels_for("check", index) for index in range(64)]
    images = render.render(labels, [seed_text("check", index) for index in range(64)]).astype(int)
    palette = np.array([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in BACKGROUND.values()])
    corner = images[:, 64, 1]  # beside the head; hair may reach it, so most of them have to agree
    nearest = np.abs(corner[:, None] - palette).sum(-1).argmin(-1)
    agree = nearest == [one["background"] for one in labels]
    assert agree.mean() > 0.8


@needs_node
@pytest.mark.parametrize("style", ATTRIBUTES["style"])
def test_parts_are_visible_and_vanish_when_left_out(style: str) -> None:
    for part in ("glasses", "beard", "hat"):
        for value in STYLES[style][part]:
            if value == "none":
                continue
            labels, seed = _find(style=style, **{part: value})
            mask = render.masks(labels, seed, part)
            assert mask.shape == (128, 128) and 0.01 < mask.mean() < 0.35
            bare = labels | {part: 0}
            assert not render.masks(bare, seed, part).any()
    labels, seed = _find(style=style, hat="none")
    assert 0.02 < render.masks(labels, seed, "hair").mean() < 0.5
    assert 0.2 < render.masks(labels, seed, "background").mean() < 0.85


@needs_node
def test_wrong_requests_are_refused_in_one_sentence() -> None:
    with pytest.raises(RevelioError, match="glasses, hat"):
        render.masks(labels_for("check", 0), "check/0", "nose")
    with pytest.raises(RevelioError, match="2 labels but 1 seeds"):
        render.render([labels_for("check", 0)] * 2, ["check/0"])
    with pytest.raises(RevelioError, match="Drawing avatars failed"):
        render.draw([{"style": "no-such-style", "options": {}, "background": "ffffff"}])


def test_a_missing_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVELIO_NODE", "/no/such/node")
    with pytest.raises(RevelioError, match=r"Node\.js was not found"):
        render.node()


def test_missing_packages_without_npm_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REVELIO_AVATARS", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RevelioError, match="npm was not found"):
        render.ensure_packages()


@needs_node
def test_shards_are_complete_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "SHARD", 8)
    monkeypatch.syspath_prepend(str(REPOSITORY))  # the worker processes import the engine from there
    make.make(tmp_path, namespace="check", count=12, split="any", workers=1, size=32)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["shard_00000.safetensors", "shard_00001.safetensors"]
    shard = load_file(str(files[1]))
    assert shard["images"].shape == (4, 32, 32, 3) and shard["images"].dtype == np.uint8
    assert shard["labels"].shape == (4, len(NAMES)) and shard["labels"].dtype == np.int16
    assert shard["seeds"].tolist() == [8, 9, 10, 11]
    times = [file.stat().st_mtime_ns for file in files]
    make.make(tmp_path, namespace="check", count=12, split="any", workers=1, size=32)
    assert [file.stat().st_mtime_ns for file in files] == times
    assert "12 of 12 avatars exist already" in capsys.readouterr().out
    with pytest.raises(RevelioError, match="contains other avatars"):
        make.make(tmp_path, namespace="judge", count=12, split="any", workers=1, size=32)


def test_the_command_line_needs_neither_torch_nor_comfy() -> None:
    code = (
        "import sys; sys.argv = ['mini', 'data', '--help']\n"
        "try:\n    import lab.__main__ as m; import lab.data.make; m.main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'comfy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True)
