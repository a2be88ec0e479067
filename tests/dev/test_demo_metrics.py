"""How the short demo counts what the judge sees in its own images; the judge is one of the test's own."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from devtools.demo.metrics import PAIRS, PROMPTED, judge_images
from lab.data.attributes import ATTRIBUTES, index_of

COLUMN = {name: number for number, name in enumerate(ATTRIBUTES)}


class _Judge:
    """Sees glasses in red images, and another background than the prompt's in blue ones."""

    def label(self, images: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(len(images), len(ATTRIBUTES), dtype=torch.long)
        for name, value in PROMPTED.items():
            found[:, COLUMN[name]] = index_of(name, value)
        red, blue = images[:, 0, 0, 0] > 0.5, images[:, 0, 0, 2] > 0.5
        found[red, COLUMN["glasses"]] = index_of("glasses", "glasses")
        found[blue, COLUMN["background"]] = index_of("background", "red")
        return found


@pytest.fixture(autouse=True)
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.evaluate.judge.load_judge", _Judge)


def _batch(*colours: str) -> list[bytes]:
    files = []
    for colour in colours:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
        files.append(file.getvalue())
    return files


def test_removal_addition_and_their_cost_are_counted_apart() -> None:
    found = judge_images(
        {
            "02_down_without": _batch("red", "red", "red", "black"),
            "02_down_steered": _batch("black", "red", "blue", "black"),
            "02_up_without": _batch("black", "black", "black", "black"),
            "02_up_steered": _batch("red", "red", "red", "black"),
        }
    )
    assert found["n_per_concept"] == 4 and found["concepts"] == ["glasses"]
    row = found["steer_features"]["removal"]["glasses"]
    assert (row["n"], row["rate_before"], row["rate_after"]) == (4, 0.75, 0.25)
    summary = found["steer_features"]["summary"]
    assert summary["removal_relative"] == pytest.approx(2 / 3)
    assert summary["removal_cost"] == pytest.approx(1 / 4 / len(PROMPTED))  # one of four backgrounds is lost
    assert summary["addition_points"] == 0.75
    assert summary["addition_cost"] == 0
    assert "steer_concept_contrast" not in found  # it has no images here


def test_a_method_with_one_direction_missing_is_left_out() -> None:
    half = {f"{name}_{kind}": _batch("red") for _, way, name in PAIRS for kind in ("without", "steered")
            if way == "removal"}  # fmt: skip
    assert judge_images(half) == {}
