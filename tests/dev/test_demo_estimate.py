"""The time left that the demo tells, by a clock of the test's own."""

from __future__ import annotations

import io
import re
import time

import pytest

from devtools.demo.estimate import Estimate, Step, duration
from devtools.demo.progress import Progress, line
from devtools.demo.run import MINUTES, SECONDS, SHORT, steps
from devtools.demo.workflows import bundled_workflows


class Clock:
    """A clock that goes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


STEPS = (
    Step("wait", 8, scales=False),
    Step("draw", 10),
    Step("train", 40),
    Step("measure", 60, scales=False),
)


def test_before_anything_is_known_the_table_is_believed() -> None:
    assert Estimate(STEPS, clock=Clock()).left() == 118


def test_a_slow_machine_lengthens_what_depends_on_it_and_nothing_else() -> None:
    clock = Clock()
    estimate = Estimate(STEPS, clock=clock)
    estimate.begin("wait")
    clock.now += 30  # a slow disk says nothing about the speed
    estimate.begin("draw")
    assert estimate.scale == 1
    clock.now += 25
    estimate.begin("train")
    assert estimate.scale == 2.5
    assert estimate.left() == 40 * 2.5 + 60


def test_a_step_that_takes_too_long_is_noticed_before_its_end() -> None:
    clock = Clock()
    estimate = Estimate((Step("draw", 10), Step("train", 40)), clock=clock)
    estimate.begin("draw")
    clock.now += 5
    assert estimate.left() == 45
    clock.now += 25
    assert estimate.scale == 3
    assert estimate.left() == 40 * 3


def test_the_share_grows_to_one_and_steps_that_are_left_out_are_dropped() -> None:
    clock = Clock()
    estimate = Estimate(STEPS, clock=clock)
    estimate.begin("wait")
    shares = [estimate.share()]
    clock.now += 8
    shares.append(estimate.share())
    estimate.begin("measure")
    shares.append(estimate.share())
    clock.now += 60
    estimate.end()
    shares.append(estimate.share())
    assert shares == sorted(shares)
    assert shares[0] == 0 and shares[-1] == 1
    with pytest.raises(ValueError, match="train"):
        estimate.begin("train")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "5 s"), (12, "10 s"), (58, "1 min"), (68, "1 min 10 s"), (299, "5 min"), (1000, "17 min")],
)
def test_times_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_log_gets_lines_of_its_own_with_the_time_left() -> None:
    stream = io.StringIO()
    estimate = Estimate([Step("draw", 120)], clock=time.monotonic)
    with Progress(estimate, stream=stream, interval=0.02) as progress:
        progress.begin("draw")
        deadline = time.monotonic() + 10
        while "left" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.say("Two images.")
    lines = stream.getvalue().splitlines()
    assert "Two images." in lines
    assert "  draw: 0%, about 2 min left" in lines
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_is_rewritten() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress(Estimate([Step("draw", 120)]), stream=stream, interval=5) as progress:
        progress.begin("draw")
        progress.say("Two images.")
    shown = stream.getvalue()
    assert re.search(r"\rdraw +0% \|.*about 2 min left", shown)
    assert shown.count("\n") == 1  # of what was said


def test_every_bundled_workflow_has_a_measured_cost_and_the_main_job_fits_its_time() -> None:
    names = [workflow.stem for workflow in bundled_workflows()]
    assert sorted(SECONDS) == names
    main_job = [workflow for workflow in bundled_workflows() if workflow.stem in SHORT]
    assert len(main_job) == len(SHORT)
    assert Estimate(steps(main_job, MINUTES, everything=False)).left() < 150


def test_the_line_names_the_step() -> None:
    clock = Clock()
    estimate = Estimate(STEPS, clock=clock)
    estimate.begin("wait")
    clock.now += 4
    assert line(estimate) == "wait: 3%, about 1 min 50 s left"
