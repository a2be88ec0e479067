"""Which step an evaluation belongs to, for the ways in which samplers walk through a schedule."""

from __future__ import annotations

import torch

from comfy_revelio.dictionary import Codes
from comfy_revelio.trace import DictionaryNote, Frame, RunRecorder
from comfy_revelio.trace.sampler_steps import look_ahead

SIGMAS = (8.0, 4.0, 2.0, 1.0, 0.0)


def test_heun_evaluates_the_next_sigma_before_its_own_step() -> None:
    assert look_ahead([8, 4, 4, 2, 2, 1, 1], SIGMAS) == {1: 0, 3: 1, 5: 2}


def test_two_steps_ahead() -> None:
    """Heun++ looks at both of the next two sigmas."""
    assert look_ahead([8, 4, 2, 4, 2, 1, 2, 1, 1], SIGMAS) == {1: 0, 2: 0, 4: 1, 5: 1, 7: 2}


def test_no_sampler_that_looks_ahead() -> None:
    assert look_ahead([8, 4, 2, 1], SIGMAS) == {}
    assert look_ahead([8, 5.6, 4, 2.8, 2, 1.4, 1], SIGMAS) == {}  # between the steps
    assert look_ahead([8.00001, 4.00001, 2], SIGMAS) == {}
    assert look_ahead([], SIGMAS) == {} and look_ahead([8.0], ()) == {}


def test_rounding_does_not_matter() -> None:
    assert look_ahead([8, 4.00001, 3.99999, 2], SIGMAS) == {1: 0}


def test_a_schedule_that_is_walked_through_backwards_is_left_alone() -> None:
    assert look_ahead([1, 2, 2, 4, 8], SIGMAS) == {}


def test_restarts_are_left_alone() -> None:
    assert look_ahead([8, 4, 2, 1, 4, 2, 1], SIGMAS) == {}


def test_the_recorder_gives_them_to_their_step() -> None:
    """In both roles, and with two calls for one prediction, as context windows make them."""
    recorder = RunRecorder(3, (4.0, 2.0, 1.0, 0.0))
    codes = Codes(torch.zeros(1, 6, 2, dtype=torch.int64), torch.zeros(1, 6, 2), 9)
    for asked, (sigma, step) in enumerate([(4.0, 0), (2.0, 1), (2.0, 1), (1.0, 2), (1.0, 2)]):
        for evaluation in range(2):
            for role in ("cond", "uncond"):
                recorder.add(Frame("m", step, evaluation, sigma, 1.0, role, (2, 3), codes), asked)
    frames = recorder.finish({"m": DictionaryNote(9, 2)}).frames
    for role in ("cond", "uncond"):
        found = [(frame.step, frame.evaluation, frame.sigma) for frame in frames if frame.role == role]
        assert found == [
            (0, 0, 4.0), (0, 1, 4.0), (0, 2, 2.0), (0, 3, 2.0), (1, 0, 2.0), (1, 1, 2.0), (1, 2, 1.0),
            (1, 3, 1.0), (2, 0, 1.0), (2, 1, 1.0),
        ]  # fmt: skip
