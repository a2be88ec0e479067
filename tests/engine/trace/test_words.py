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
    assert torch.allclose(frame.shares, torch.full((1, 2, 6), 0.2), atol=1e-3)
    assert torch.equal(frame.maps(0), frame.shares[0].unflatten(1, (2, 3)))
    assert trace.nbytes == 2 * (4 * 12 + 4 * 2)


def test_asking_for_what_is_not_there() -> None:
    trace = recorded(("cond",))
    with pytest.raises(
        RevelioError, match=r"Nothing was recorded for 'uncond'; this run has cond\. At CFG 1"
    ):
        trace.select("uncond")
    with pytest.raises(RevelioError, match="no layer 'c'; this run has a, b"):
        trace.select("cond", layers=["c"])
    with pytest.raises(RevelioError, match="no step 7; there are 0 to 1"):
        trace.select("cond", step=7)
    with pytest.raises(RevelioError, match=r"words of 'uncond' are not known, only those of cond: connect"):
        WordTrace(trace.frames, {"cond": ("red", "hat")}, 2).select("uncond")
    with pytest.raises(RevelioError, match=r"words of 'cond' are not known, only those of uncond: connect"):
        WordRecorder(1).finish({"uncond": ()}).select("cond")
    with pytest.raises(RevelioError, match=r"Nothing was recorded for 'uncond': that prompt has no words"):
        WordTrace(trace.frames, {"cond": ("red", "hat"), "uncond": ()}, 2).select("uncond")
    with pytest.raises(RevelioError, match="No attention to words was recorded"):
        WordRecorder(1).finish({"cond": ("red",)}).select("cond")
    with pytest.raises(RevelioError, match="outputs of Record Words to the sampler"):
        WordRecorder(1).finish({}).select("cond")


def test_a_video_is_averaged_over_its_frames() -> None:
    recorder = WordRecorder(1)
    shares = torch.cat([torch.zeros(1, 1, 6), torch.ones(1, 1, 6)], dim=2)
    recorder.add("a", 0, 0, 1.0, "cond", (2, 2, 3), shares)
    (frame,) = recorder.finish({"cond": ("hat",)}).frames
    assert frame.grid == (2, 3) and torch.equal(frame.maps(0), torch.full((1, 2, 3), 0.5))


def test_small_shares_keep_their_digits() -> None:
    """A picture of 4,096 patches beside a prompt leaves a word a millionth of the attention."""
    recorder = WordRecorder(1)
    small = torch.tensor([[[1.234e-6, 5.678e-6]]])
    recorder.add("a", 0, 0, 1.0, "cond", (1, 2), small)
    (frame,) = recorder.finish({"cond": ("hat",)}).frames
    assert torch.allclose(frame.shares, small, rtol=1e-3, atol=0)


def test_what_the_whole_run_would_take_is_known_after_the_first_step() -> None:
    """24 bytes a step: 10 steps fit into 240 bytes, and 11 are refused when the second begins."""

    def record(steps: int, total: int) -> None:
        recorder = WordRecorder(total, max_bytes=240)
        for step in range(steps):
            for _ in range(2):  # attentions of one layer: the second needs nothing more
                recorder.add("a", step, 0, 9.0 - step, "cond", (2, 3), torch.zeros(1, 2, 6))

    record(10, 10)
    record(1, 11)
    with pytest.raises(RevelioError, match=r"of this run would take 0\.0 GiB, more than 0\.0; use fewer"):
        record(2, 11)


def test_a_single_step_is_bounded_too() -> None:
    recorder = WordRecorder(1, max_bytes=50)
    recorder.add("a", 0, 0, 9.0, "cond", (2, 3), torch.zeros(1, 2, 6))
    recorder.add("b", 0, 0, 9.0, "cond", (2, 3), torch.zeros(1, 2, 6))
    with pytest.raises(RevelioError, match="use fewer steps, a smaller batch"):
        recorder.add("c", 0, 0, 9.0, "cond", (2, 3), torch.zeros(1, 2, 6))
