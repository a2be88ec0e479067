"""A recorded run: two hook points of unlike grids, two roles, a second evaluation, a batch of 2."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio.dictionary import Dictionary
from comfy_revelio.trace import Frame, RunRecorder, Trace

SIGMAS = (14.6146, 7.1, 1 / 3, 0.0)
GRIDS = {"middle_block.1": (3, 5), "output_blocks.1.1": (6, 10)}


@pytest.fixture
def dictionaries(make_dictionary) -> dict[str, Dictionary]:
    return {
        "middle_block.1": make_dictionary(labels={"glasses": [3, 1], "red hair": [7]}),
        "output_blocks.1.1": make_dictionary(n=64, d=8, k=3, seed=1, stats=None),
    }


@pytest.fixture
def trace(dictionaries) -> Trace:
    recorder = RunRecorder(3, SIGMAS)
    g = torch.Generator().manual_seed(0)
    for step in range(3):
        for evaluation in (0, 1) if step < 2 else (0,):
            for name, (height, width) in GRIDS.items():
                for role in ("cond", "uncond"):
                    x = torch.randn(2, height * width, dictionaries[name].d_model, generator=g)
                    sigma = SIGMAS[step] - 0.01 * evaluation
                    recorder.add(Frame(name, step, evaluation, sigma, 999.0 - step, role, (height, width),
                                 dictionaries[name].encode(x)))  # fmt: skip
    return recorder.finish(dictionaries)
