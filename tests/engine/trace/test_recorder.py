"""Recording: order kept, memory bounded, threads welcome, nothing shared with the model."""

from __future__ import annotations

import threading

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Codes
from comfy_revelio.trace import DictionaryNote, Frame, RunRecorder

NOTE = {"m": DictionaryNote(9, 2), "n": DictionaryNote(9, 2)}


def _codes(rows: int = 1, tokens: int = 6, seed: int = 0) -> Codes:
    g = torch.Generator().manual_seed(seed)
    return Codes(
        torch.randint(9, (rows, tokens, 2), generator=g), torch.rand(rows, tokens, 2, generator=g), 9
    )


def test_frames_keep_their_order_and_content() -> None:
    recorder = RunRecorder(4, torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0]).tolist())
    given = []
    for step in range(4):
        for name, tokens, grid in (("m", 6, (2, 3)), ("n", 4, (1, 4))):
            codes = _codes(1 + step % 2, tokens, seed=step)
            given.append((name, step, grid, codes))
            recorder.add(Frame(name, step, 0, 3.0 - step, 10.0, "cond", grid, codes))
    trace = recorder.finish(NOTE)
    for frame, (name, step, grid, codes) in zip(trace.frames, given, strict=True):
        assert (frame.hook_point, frame.step, frame.grid) == (name, step, grid)
        assert torch.equal(frame.codes.indices, codes.indices) and torch.equal(
            frame.codes.values, codes.values
        )
        assert frame.codes.indices.dtype == torch.int64
    assert recorder.finish(NOTE).frames == ()


def test_a_frame_is_a_copy() -> None:
    recorder, codes = RunRecorder(1, (1.0, 0.0)), _codes()
    expected = codes.values.clone()
    recorder.add(Frame("m", 0, 0, 1.0, 1.0, "cond", (2, 3), codes))
    codes.values.zero_()
    assert torch.equal(recorder.finish(NOTE).frames[0].codes.values, expected)


def test_memory_is_bounded_before_it_is_used() -> None:
    recorder = RunRecorder(9, (1.0, 0.0), max_bytes=12 * 12 * 2)
    for step in range(2):
        recorder.add(Frame("m", step, 0, 1.0, 1.0, "cond", (2, 3), _codes()))
    with pytest.raises(RevelioError, match="GiB; record fewer"):
        recorder.add(Frame("m", 2, 0, 1.0, 1.0, "cond", (2, 3), _codes()))
    assert len(recorder.finish(NOTE).frames) == 2


def test_many_threads_lose_nothing() -> None:
    recorder = RunRecorder(8, (1.0, 0.0))

    def work(step: int) -> None:
        for evaluation in range(50):
            recorder.add(Frame("m", step, evaluation, 1.0, 1.0, "cond", (2, 3), _codes()))

    threads = [threading.Thread(target=work, args=(step,)) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = recorder.finish(NOTE).frames
    assert len({(frame.step, frame.evaluation) for frame in frames}) == len(frames) == 400


def test_what_does_not_fit_is_refused() -> None:
    recorder = RunRecorder(1, (1.0, 0.0))
    with pytest.raises(RevelioError, match="grid of 2 by 2"):
        recorder.add(Frame("m", 0, 0, 1.0, 1.0, "cond", (2, 2), _codes()))
    with pytest.raises(RevelioError, match="finite"):
        recorder.add(Frame("m", 0, 0, float("nan"), 1.0, "cond", (2, 3), _codes()))
    recorder.add(Frame("other", 0, 0, 1.0, 1.0, "cond", (2, 3), _codes()))
    with pytest.raises(RevelioError, match="other"):
        recorder.finish(NOTE)


def test_a_dictionary_becomes_a_note(make_dictionary) -> None:
    sae = make_dictionary(labels={"hat": [2]})
    note = RunRecorder(1, (1.0, 0.0)).finish({"m": sae}).dictionaries["m"]
    assert (note.n_features, note.k, note.label(2), note.label(3)) == (40, 5, "hat", "")
    assert torch.equal(note.mean_active, sae.stats.mean_active)
