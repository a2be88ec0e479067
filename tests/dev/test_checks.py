"""All checks of `dev.py test`: they run side by side, and what fails is named."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from devtools import checks
from devtools.places import Places, find_places
from devtools.problem import Problem
from devtools.process import call_quietly


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return find_places({"REVELIO_DEV_DIR": str(tmp_path)})


def _saying(text: str, code: int = 0) -> checks.Check:
    return lambda _places: (code, text)


def test_what_failed_is_named_after_everything_was_tried(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lanes = ({"one": _saying("bad", 2), "two": _saying("good\n")}, {"three": _saying("worse", 1)})
    monkeypatch.setattr(checks, "LANES", lanes)
    monkeypatch.setattr(checks, "_pytest", lambda *_: 1)
    with pytest.raises(Problem, match=r"^Not passed: one, three, tests\.$"):
        checks.everything(places)
    told = capsys.readouterr().out
    assert "one: failed\nbad\n" in told and "two: passed\n" in told and "three: failed\nworse\n" in told
    assert "good" not in told


def test_lanes_run_side_by_side(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other, and pytest comes after both."""
    meeting = threading.Barrier(2, timeout=30)

    def meet(_places: Places) -> tuple[int, str]:
        meeting.wait()
        return 0, ""

    started: list[dict[str, str]] = []

    def run(_places: Places, _arguments: list[str], env: dict[str, str]) -> int:
        assert meeting.n_waiting == 0
        started.append(env)
        return 0

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(checks, "LANES", ({"one": meet}, {"other": meet}))
    monkeypatch.setattr(checks, "_pytest", run)
    assert checks.everything(places) == 0
    assert [env["OMP_NUM_THREADS"] for env in started] == ["1"]


def test_a_quiet_command_gives_what_it_printed_in_order() -> None:
    script = "import sys; print('é', flush=True); print('no', file=sys.stderr); sys.exit(3)"
    command = [sys.executable, "-X", "utf8", "-c", script]
    code, printed = call_quietly(command)
    assert code == 3 and printed.split() == ["é", "no"]
