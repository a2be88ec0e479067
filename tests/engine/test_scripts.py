"""The scripts in scripts/: each is short, runs as a user runs it, and shows what it promises."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_revelio import Trace, load_dictionary

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
GLASSES = 522
"""The first feature under the label glasses of the bundled SAE that the scripts load."""

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one script with arguments, as `python -m scripts.NAME` does, and returns what it prints."""

    def run_script(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_script


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_is_short_and_this_file_runs_it(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert f"python -m scripts.{script.stem}" in text
    assert f'run("{script.stem}"' in Path(__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["middle", "up4"])
def test_the_features_that_were_put_in_are_found(run: Run, name: str) -> None:
    printed = run("encode_activations", ROOT / "sae_weights" / f"revelio_mini_{name}.safetensors")
    assert f"revelio_mini_{name}.safetensors: 1536 features, k 16" in printed
    found = re.search(r"features found again: (\d+)%; explained variance: (\d\.\d+)", printed)
    assert found is not None
    assert int(found[1]) > 95
    assert float(found[2]) > 0.6


def test_a_trace_shows_the_feature_that_grows(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    printed = run("read_trace", file)
    line = next(line for line in printed.splitlines() if f"feature {GLASSES}:" in line)
    values = [float(value) for value in line.rpartition("step ")[2].split(", ")]
    assert len(values) == 4
    assert values == sorted(values)
    assert values[0] < 1 < 20 < values[-1]
    assert Trace.load(file).hook_points == ("middle_block.1",)
    assert run("read_trace", file) == printed  # now it is read and not made


def test_only_the_steered_feature_changes(run: Run) -> None:
    printed = run("steer_tokens")
    along, across = (float(line.rpartition(": ")[2]) for line in printed.splitlines())
    sae = load_dictionary(ROOT / "sae_weights" / "revelio_mini_middle.safetensors")
    assert sae.stats is not None
    assert along == pytest.approx(2 * float(sae.stats.mean_active[GLASSES]), rel=0.01)
    assert across < 0.001 * along


def test_a_trained_sae_has_the_planted_features(run: Run, tmp_path: Path) -> None:
    printed = run("train_on_shards", tmp_path)
    explained = re.search(r"explained variance on held-out items: (\d\.\d+)", printed)
    assert explained is not None and float(explained[1]) > 0.9
    again = re.search(r"features found again: (\d+) of 96", printed)
    assert again is not None and int(again[1]) > 85
    assert load_dictionary(tmp_path / "my_sae.safetensors").n_features == 192
