"""Notes of words: averaged by layer, bounded, and asked for by role, step and layer."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.trace import WordRecorder, WordTrace


def recorded(roles: tuple[str, ...] = ("cond", "uncond")) -> WordTrace:
    recorder = WordRecorder(2)
    for role in roles:
        for step in range(2):
            for value in (0.1, 0.3):  # two attentions of one layer
                recorder.add("a", step, 0, 5.0 - step, role, (2, 3), torch.full((1, 2, 6), value))
            recorder.add("b", step, 0, 5.0 - step, role, (1, 1), torch.full((1, 2, 1), 0.5))
    return recorder.finish({"cond": ("red", "hat"), "uncond": ("blue", "hat")})


def test_attentions_of_one_layer_are_averaged() -> None:
    trace = recorded()
    assert trace.layers == ("a", "b") and trace.roles == ("cond", "uncond") and trace.batch_size == 1
    assert len(trace.frames) == 8
    (frame,) = trace.select("cond", step=1, layers=["a"])
    assert frame.grid == (2, 3) and frame.sigma == 4.0
    assert torch.allclose(frame.shares.float(), torch.full((1, 2, 6), 0.2), atol=1e-3)
    assert trace.nbytes == 2 * (4 * 12 + 4 * 2)


def test_asking_for_what_is_not_there() -> None:
    trace = recorded(("cond",))
    with pytest.raises(RevelioError, match=r"Nothing was recorded for 'uncond'; this run has cond.*CFG 1"):
        trace.select("uncond")
    with pytest.raises(RevelioError, match="no layer 'c'; this run has a, b"):
        trace.select("cond", layers=["c"])
    with pytest.raises(RevelioError, match="no step 7; there are 0 to 1"):
        trace.select("cond", step=7)
    with pytest.raises(RevelioError, match="No attention to words was recorded"):
        WordRecorder(1).finish({}).select("cond")


def test_the_bound() -> None:
    recorder = WordRecorder(1, max_bytes=50)
    recorder.add("a", 0, 0, 1.0, "cond", (2, 3), torch.zeros(1, 2, 6))
    recorder.add("a", 0, 0, 1.0, "cond", (2, 3), torch.zeros(1, 2, 6))  # the same layer: nothing more is held
    with pytest.raises(RevelioError, match=r"more than 0\.0 GiB"):
        recorder.add("a", 1, 0, 1.0, "cond", (2, 3), torch.zeros(1, 2, 9))
        recorder.add("a", 2, 0, 1.0, "cond", (2, 3), torch.zeros(1, 2, 9))
