"""A small real trace, made to measure: one dot of heat per feature."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from comfy_revelio.dictionary import Codes
from comfy_revelio.trace import DictionaryNote, Frame, Trace

HOOK_POINT = "middle_block.1"


def make_trace(
    dots: dict[int, tuple[int, int, float]],
    *,
    grid: tuple[int, int] = (8, 8),
    steps: int = 4,
    batch: int = 1,
    labels: dict[str, list[int]] | None = None,
    n_features: int = 64,
    roles: tuple[str, ...] = ("cond",),
) -> Trace:
    """dots: feature -> (row, column, value), at one token of every step; n-fold in batch item n - 1."""
    height, width = grid
    indices = torch.zeros(batch, height * width, len(dots), dtype=torch.int64)
    values = torch.zeros(batch, height * width, len(dots))
    for place, (feature, (row, column, value)) in enumerate(dots.items()):
        token = row * width + column
        indices[:, token, place] = feature
        values[:, token, place] = value * torch.arange(1, batch + 1)
    values, order = values.sort(-1, descending=True)
    codes = Codes(indices.gather(-1, order), values, n_features)
    sigmas = tuple(float(steps - step) for step in range(steps))
    frames = tuple(
        Frame(HOOK_POINT, step, 0, sigmas[step], 999.0 - step, role, grid, codes)
        for step in range(steps)
        for role in roles
    )
    note = DictionaryNote(n_features=n_features, k=max(1, len(dots)), labels=labels or {}, mean_active=None)
    return Trace(frames=frames, dictionaries={HOOK_POINT: note}, total_steps=steps, sigmas=(*sigmas, 0.0))


@pytest.fixture
def traced() -> Callable[..., Trace]:
    return make_trace
