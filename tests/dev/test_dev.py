"""The command line of `dev.py`: exit codes, and one sentence for every failure."""

from __future__ import annotations

import errno
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from devtools import commandline
from devtools.demo.metrics import summary_lines
from devtools.demo.workflows import beside, image_name
from devtools.places import ROOT, find_places
from devtools.problem import Problem, exit_code


def _dev(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"REVELIO_DEV_DIR": str(tmp_path / "dev")} | variables
    return subprocess.run(
        [sys.executable, str(ROOT / "dev.py"), *arguments], env=environ, capture_output=True, text=True
    )


def _is_one_sentence(done: subprocess.CompletedProcess[str]) -> bool:
    lines = done.stderr.splitlines()
    return done.returncode == 1 and len(lines) == 1 and lines[0].startswith("error: ") and lines[0][-1] == "."


def test_help_names_every_command(tmp_path: Path) -> None:
    done = _dev(tmp_path, "--help")
    assert done.returncode == 0
    for command in ("demo", "test", "serve", "bench", "run", "--fresh"):
        assert command in done.stdout


def test_busy_port_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = _dev(tmp_path, "serve", "--port", str(other.getsockname()[1]))
    assert _is_one_sentence(done), done.stderr
    assert not (tmp_path / "dev").exists()


def test_run_without_a_command(tmp_path: Path) -> None:
    done = _dev(tmp_path, "run", "--")
    assert _is_one_sentence(done), done.stderr


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _dev(tmp_path, "run", "--", "python", REVELIO_DEV_DIR=str(tmp_path / "file" / "dev"))
    assert _is_one_sentence(done), done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["test"], []),
        (["test", "-m", "not e2e", "--lf", "tests/dev"], ["-m", "not e2e", "--lf", "tests/dev"]),
        (["run", "--", "python", "--version"], ["python", "--version"]),
        (["run", "--", "git", "diff", "--", "--fresh"], ["git", "diff", "--", "--fresh"]),
    ],
)
def test_other_programs_arguments_are_passed_on(line: list[str], words: list[str]) -> None:
    options = commandline.parse(line)
    assert options.words == words
    assert not options.fresh


@pytest.mark.parametrize(
    "line", [["--fresh", "test", "-x"], ["test", "--fresh", "-x"], ["--fresh", "run", "--", "-x"]]
)
def test_fresh_is_ours(line: list[str]) -> None:
    options = commandline.parse(line)
    assert options.fresh
    assert options.words == ["-x"]


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        (Problem("The moon is full."), 1, "error: The moon is full."),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: Permission denied: /x."),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_failures_become_sentences(
    failure: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise failure

    assert exit_code(fail) == code
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("line", "everything"), [(["demo"], False), (["demo", "--all"], True)])
def test_all_of_the_demo_is_asked_for(
    line: list[str], everything: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setenv("REVELIO_DEV_DIR", str(tmp_path))
    monkeypatch.setattr(commandline, "prepare", lambda _places: None)
    monkeypatch.setattr(commandline, "call", lambda command, **_: called.append(list(map(str, command))) or 0)

    def no_browser() -> None:
        raise Problem("There is no browser.")

    monkeypatch.setattr(commandline, "ensure_chromium", no_browser)
    assert commandline.main(line) == 0
    ((*_, module, last),) = called
    assert [module, last] == (["devtools.demo", "--all"] if everything else ["-m", "devtools.demo"])


def test_commands_inside_find_the_environment_and_not_the_repository(tmp_path: Path) -> None:
    places = find_places({"REVELIO_DEV_DIR": str(tmp_path)})
    inside = places.variables({"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)})
    assert inside["PATH"].split(os.pathsep) == [str(places.scripts), "/usr/bin"]
    assert inside["COMFYUI_PATH"] == str(tmp_path / "comfyui")
    assert "PYTHONPATH" not in inside


def test_places_understood_again_from_inside(tmp_path: Path) -> None:
    """A command inside the environment finds the same places as `dev.py` did."""
    places = find_places({"REVELIO_DEV_DIR": str(tmp_path)})
    assert find_places(places.variables({})) == places


def test_an_image_keeps_the_name_that_its_workflow_gives() -> None:
    assert image_name("02_up_steered_00001_.png") == "02_up_steered"


def test_a_batch_becomes_one_row() -> None:
    files = []
    for color in ("red", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (8, 6), color).save(file, "PNG")
        files.append(file.getvalue())
    row = beside(files, gap=2)
    assert row.size == (18, 6)
    assert [row.getpixel((x, 3)) for x in (0, 8, 10)] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


def test_summary_names_each_steering_method_once() -> None:
    effect = {"removal_relative": 0.9, "removal_cost": 0.012, "addition_points": 0.7, "addition_cost": 0.02}
    report = {
        "steering": {
            "n_per_concept": 4,
            "concepts": ["glasses", "hat"],
            "best_hook_point": "output_blocks.4.1",
            "hook_points": {"n_per_concept": 2, "output_blocks.4.1": effect},
            "steer_features": {"removal": {}, "addition": {}, "summary": effect},
        }
    }
    assert summary_lines(report) == [
        "steering, measured on 4 images for each direction of glasses, hat:",
        "steer_features: removes 90% (costs other attributes 1.2 points), adds 70 points (costs 2.0)",
    ]


def test_summary_says_the_size_of_the_sample() -> None:
    report = {"mini_model": {"prompt_accuracy": 0.953, "n_prompts": 64}, "judge": {"accuracy": 0.99}}
    assert summary_lines(report) == [
        "prompted attributes found in the images: 95.3% of cases (64 prompts)",
        "the judge's own accuracy on rendered avatars: 99.0%",
    ]
