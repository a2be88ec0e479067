"""The recipes of the papers: each learns planted features, and does what sets it apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfy_revelio.dictionary import load_dictionary, save_dictionary
from comfy_revelio.errors import RevelioError
from comfy_revelio.training import PRESETS, error_by_timestep, measure, preset, train
from comfy_revelio.training.initial_weights import geometric_median

ROOT = Path(__file__).resolve().parents[3]
D = 24
SMALL = {
    "n_features": 96, "k": 4, "steps": 300, "batch": 256, "learning_rate": 5e-3, "warmup": 10,
    "device": "cpu",
}  # fmt: skip


def planted(rows: int, seed: int = 0) -> Tensor:
    """Sums of 3 of 48 unit directions, off centre."""
    g = torch.Generator().manual_seed(99)
    directions = torch.nn.functional.normalize(torch.randn(48, D, generator=g), dim=1)
    g = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows, 48, generator=g).argsort(1)[:, :3]
    return ((torch.rand(rows, 3, generator=g) + 0.5)[..., None] * directions[chosen]).sum(1) + 2


def drifting(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same, but every direction is stretched and moved by the timestep."""
    x = planted(rows, seed)
    t = torch.rand(rows, generator=torch.Generator().manual_seed(seed + 1)) * 999
    g = torch.Generator().manual_seed(7)
    stretch, move = torch.randn(D, generator=g), torch.randn(D, generator=g) * 3
    share = (t / 999)[:, None]
    return x * (1 + 0.8 * torch.sin(3 * share * stretch)) + share * move, t


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns(tmp_path: Path, name: str) -> None:
    x, t = drifting(8000) if name == "temporal" else (planted(8000), None)
    held_out, held_t = drifting(1000, seed=5) if name == "temporal" else (planted(1000, seed=5), None)
    dictionary = train(x, preset(name, D, **SMALL), timesteps=t)
    metrics = measure(dictionary, held_out, timesteps=held_t)
    assert metrics["explained_variance"] > 0.6
    assert metrics["l0"] < 12
    save_dictionary(dictionary, tmp_path / "d.safetensors", dtype=torch.float32)
    again = load_dictionary(tmp_path / "d.safetensors")
    assert torch.equal(again(held_out, timestep=held_t), dictionary(held_out, timestep=held_t))


def test_following_the_timestep_pays_where_features_drift() -> None:
    x, t = drifting(8000)
    held_out, held_t = drifting(2000, seed=5)
    errors = {}
    for name in ("topk", "temporal"):
        dictionary = train(x, preset(name, D, **SMALL), timesteps=t)
        errors[name] = [bucket["mse"] for bucket in error_by_timestep(dictionary, held_out, held_t)]
    assert len(errors["topk"]) == 5
    assert sum(errors["temporal"]) < 0.8 * sum(errors["topk"])


def test_recipes_have_the_sizes_of_their_papers() -> None:
    assert preset("revelio", 1280).n_features == 81_920
    assert preset("steerers", 768).n_features == 3072
    assert preset("sdxl-unbox", 1280).n_features == 5120
    assert preset("saeuron", 1280).n_features == 20_480
    assert preset("flux", 3072).n_features == 65_536


def test_unknown_presets_and_options_are_named() -> None:
    with pytest.raises(RevelioError, match="no preset 'revellio'"):
        preset("revellio", 8)
    with pytest.raises(RevelioError, match="no option speed"):
        preset("topk", 8, speed=3)
    with pytest.raises(RevelioError, match="needs the timestep"):
        train(planted(100), preset("temporal", D, **SMALL))


def test_the_geometric_median_is_the_point_of_least_distance() -> None:
    rows = torch.cat([torch.randn(60, 3), torch.randn(6, 3) + 50])
    found = geometric_median(rows)

    def distance(point: Tensor) -> float:
        return float((rows - point).norm(dim=1).sum())

    assert distance(found) < distance(rows.mean(0))
    for _ in range(20):
        assert distance(found) <= distance(found + torch.randn(3) * 0.05) + 1e-3


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["topk", "flux", "saeuron", "temporal"])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path: Path, name: str) -> None:
    x, t = drifting(2000)
    config = preset(name, D, **{**SMALL, "steps": 60, "dead_after": 3000, "report_every": 7})
    whole = train(x, config, timesteps=t)
    file = tmp_path / "state.safetensors"
    for stop in (14, 35):

        def interrupt(step: int, steps: int, metrics: dict[str, float], stop: int = stop) -> None:
            if step == stop:
                raise Stop

        with pytest.raises(Stop):
            train(x, config, interrupt, timesteps=t, checkpoint=file)
        assert file.exists()
    seen: list[int] = []
    again = train(x, config, lambda step, *_: seen.append(step), timesteps=t, checkpoint=file)
    assert seen[0] == 42
    assert not file.exists()
    for one, other in zip(whole.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    x, file = planted(500), tmp_path / "state.safetensors"
    config = preset("topk", D, **{**SMALL, "report_every": 5})

    def interrupt(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(x, config, interrupt, checkpoint=file)
    with pytest.raises(RevelioError, match=r"other settings .*k"):
        train(x, preset("topk", D, **{**SMALL, "k": 5}), checkpoint=file)
    file.write_bytes(b"nonsense")
    with pytest.raises(RevelioError, match="safetensors"):
        train(x, config, checkpoint=file)


TWO = """
import sys, torch
sys.path.insert(0, {root!r})
sys.path.insert(0, {tests!r})
from test_presets import SMALL, planted
from comfy_revelio.dictionary import save_dictionary
from comfy_revelio.training import preset, train
from comfy_revelio.training.processes import join_processes
process, _ = join_processes("cpu")
sys.stdout.write(f"{{process.rank}} of {{process.world}}\\n")  # print writes the end of its line apart
sys.stdout.flush()
d = train(planted(4000), preset("topk", 24, **SMALL))
import os
if os.environ.get("RANK", "0") == "0":
    save_dictionary(d, {out!r}, dtype=torch.float32)
sys.stdout.flush()
os._exit(0)  # as python -m comfy_revelio does
"""


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    x, held_out = planted(4000), planted(1000, seed=5)
    alone = measure(train(x, preset("topk", D, **SMALL)), held_out)
    out = tmp_path / "two.safetensors"
    script = tmp_path / "two.py"
    script.write_text(TWO.format(root=str(ROOT), tests=str(Path(__file__).parent), out=str(out)))
    # with --cpu accelerate starts one process, whatever the number
    command = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
               str(script)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], check=True, env=environment, timeout=300, capture_output=True, text=True
    )
    assert sorted(line for line in done.stdout.splitlines() if " of " in line) == ["0 of 2", "1 of 2"]
    together = measure(load_dictionary(out), held_out)
    assert together["explained_variance"] == pytest.approx(alone["explained_variance"], abs=0.01)
