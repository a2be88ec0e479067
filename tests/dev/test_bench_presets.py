"""What the measurement of the recipes writes into docs/training.md."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_presets.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_presets", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(name: str, mse: float) -> dict[str, Any]:
    return {
        "name": name,
        "n_features": 96,
        "k": 4,
        "steps": 10,
        "explained_variance": 0.9,
        "cosine": 0.95,
        "l0": 4.0,
        "dead_share": 0.015,
        "measured_rows": 1234.0,
        "by_timestep": [{"from": 0.0, "to": 200.0, "mse": mse}, {"from": 200.0, "to": 400.0, "mse": mse}],
    }


def test_the_tables_get_into_the_document(bench: ModuleType) -> None:
    shards = SimpleNamespace(n_rows=5000, n_items=10, d_model=6)
    reports = [report("topk", 0.5), report("temporal", 0.4)]
    presets, timesteps = bench.presets_block(reports, shards), bench.timesteps_block(reports)
    assert "| `topk` | 96 | 4 | 0.900 | 0.950 | 4.0 | 1.5% |" in presets
    assert "5,000 activations of 10 images" in presets and "1,234" in presets
    assert "| 200 to 400 | 0.50000 | 0.40000 | -20.0% |" in timesteps
    text = bench.DOCUMENT.read_text(encoding="utf-8")
    filled = bench.fill(text, {"presets": presets, "timesteps": timesteps})
    assert presets in filled and timesteps in filled
    assert bench.timesteps_block(reports[:1]) == ""
