"""Transfers between generations of other sizes, batches and schedules, and what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.steering import TokenContext, Transfer
from comfy_revelio.steering.transfer import cells_of
from comfy_revelio.trace import Frame, RunRecorder, Trace

GRID = (3, 5)


def record(sae: Any, seed: int, *, grid: tuple[int, int] = GRID, items: int = 1) -> Trace:
    recorder = RunRecorder(2, (1.0, 0.5, 0.0))
    g = torch.Generator().manual_seed(seed)
    for step, time in enumerate((900.0, 300.0)):
        codes = sae.encode(2 * torch.randn(items, grid[0] * grid[1], sae.d_model, generator=g))
        recorder.add(Frame("place", step, 0, 1.0, time, "cond", grid, codes))
    return recorder.finish({"place": sae})


@pytest.fixture
def sae(make_dictionary: Any) -> Any:
    return make_dictionary(k=12)


@pytest.fixture
def mask() -> Tensor:
    mask = torch.zeros(30, 50)
    mask[10:20, 10:30] = 1.0  # two cells in the middle row
    return mask


def changed(transfer: Transfer, grid: tuple[int, int] = GRID, time: float = 900.0) -> Tensor:
    tokens = 2 * torch.randn(2, grid[0] * grid[1], 12, generator=torch.Generator().manual_seed(8))
    change = transfer.delta(tokens, TokenContext("cond", grid, timestep=time))
    assert change is not None
    return (change.abs() > 1e-6).any(-1).any(0).reshape(grid)


def test_only_the_masked_cells_change(sae: Any, mask: Tensor) -> None:
    cells = torch.zeros(GRID, dtype=torch.bool)
    cells[1, 1:3] = True
    for spread in ("place", "mean", "quantile"):
        for method in ("plain", "adaptive"):
            transfer = Transfer(
                sae, "place", record(sae, 1), mask, record(sae, 2), method=method, spread=spread
            )
            assert torch.equal(changed(transfer), cells)


def test_without_a_target_nothing_is_removed(sae: Any, mask: Tensor) -> None:
    transfer = Transfer(sae, "place", record(sae, 1), mask, count=5)
    assert transfer.removed == () and len(transfer.added) == 5
    source = record(sae, 1).frames[0].codes.dense()[0].reshape(*GRID, -1)[1, 1:3]
    tokens = torch.zeros(1, 15, 12)
    change = transfer.delta(tokens, TokenContext("cond", GRID, timestep=900.0))
    assert change is not None
    features = list(transfer.added)
    expected = source[:, features] @ sae.W_dec[features]
    assert torch.allclose(change.reshape(*GRID, 12)[1, 1:3], expected, atol=1e-5)


def test_the_step_is_that_of_the_nearest_timestep(sae: Any, mask: Tensor) -> None:
    transfer = Transfer(sae, "place", record(sae, 1), mask, count=5)
    tokens = torch.zeros(1, 15, 12)
    early, also_early, late = (
        transfer.delta(tokens, TokenContext("cond", GRID, timestep=time)) for time in (990.0, 700.0, 10.0)
    )
    assert early is not None and also_early is not None and late is not None
    assert torch.equal(early, also_early) and not torch.equal(early, late)


def test_a_target_of_another_size(sae: Any, mask: Tensor) -> None:
    transfer = Transfer(sae, "place", record(sae, 1), mask, record(sae, 2, grid=(6, 10)))
    where = changed(transfer, (6, 10))
    assert bool(where[2:4, 2:6].all()) and not bool(where[:, 8:].any())


def test_one_image_of_a_batch(sae: Any, mask: Tensor) -> None:
    batch = record(sae, 1, items=3)
    one, other = (Transfer(sae, "place", batch, mask, count=5, source_item=item) for item in (0, 2))
    assert one.added != other.added
    with pytest.raises(RevelioError, match=r"no image 3.*0 to 2"):
        Transfer(sae, "place", batch, mask, source_item=3)


def test_when_and_whom(sae: Any, mask: Tensor) -> None:
    tokens = torch.zeros(1, 15, 12)
    transfer = Transfer(sae, "place", record(sae, 1), mask, start_percent=0.2, end_percent=0.6)
    for role, percent, acts in (
        ("cond", 0.2, True),
        ("cond2", 0.5, True),
        ("cond", 0.6, False),
        ("uncond", 0.4, False),
    ):
        change = transfer.delta(tokens, TokenContext(role, GRID, percent=percent, timestep=900.0))
        assert (change is not None) == acts
    for nothing in ({"strength": 0.0}, {"start_percent": 0.5, "end_percent": 0.5}):
        still = Transfer(sae, "place", record(sae, 1), mask, **nothing)
        assert not still.active
        assert still.delta(tokens, TokenContext("cond", GRID, percent=0.5, timestep=900.0)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "magic"}, "adaptive, plain"),
        ({"spread": "far"}, "place, mean, quantile"),
        ({"scores": "last"}, "first, mean"),
        ({"strength": float("nan")}, "finite"),
        ({"start_percent": 0.9, "end_percent": 0.1}, "start before end"),
        ({"count": 0}, "must be at least 1, not 0"),
        ({"source_mask": torch.zeros(8, 8)}, "black"),
        ({"source_mask": torch.zeros(2)}, "mask"),
        ({"target_mask": torch.zeros(8, 8)}, "black"),
    ],
)
def test_invalid_settings_are_refused(sae: Any, mask: Tensor, change: dict[str, Any], words: str) -> None:
    usual = {"source_mask": mask, "target": record(sae, 2)}
    with pytest.raises(RevelioError, match=words):
        Transfer(sae, "place", record(sae, 1), **{**usual, **change})


def test_the_trace_must_be_of_this_dictionary(sae: Any, mask: Tensor, make_dictionary: Any) -> None:
    with pytest.raises(RevelioError, match=r"40 features.*has 64"):
        Transfer(make_dictionary(n=64), "place", record(sae, 1), mask)
    with pytest.raises(RevelioError, match="'elsewhere' was not recorded"):
        Transfer(sae, "elsewhere", record(sae, 1), mask)


def test_cells_of_a_mask() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[:, :2, :3] = 1.0
    assert cells_of(mask, (2, 2)).tolist() == [True, True, False, False]  # full and half of it
    dot = torch.zeros(1, 64, 64)
    dot[:, 0, 0] = 1.0
    assert cells_of(dot, (2, 2)).tolist() == [True, False, False, False]


def test_quantiles_of_many_cells_and_features(sae: Any, mask: Tensor) -> None:
    """torch.quantile refuses more than 2**24 values."""
    transfer = Transfer(sae, "place", record(sae, 1), mask, spread="quantile")
    values = torch.rand(4096, 4100, generator=torch.Generator().manual_seed(3))
    found = transfer._summary(values)
    assert found.shape == (4100,)
    for feature in (0, 1023, 1024, 4099):
        assert float(found[feature]) == pytest.approx(float(values[:, feature].quantile(0.95)), abs=1e-6)
