"""The folders of the repository, the development environment and the host ComfyUI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository, which is the pack itself."""

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2 * 2**30),
    "MALLOC_TOP_PAD_": str(256 * 2**20),
    "MALLOC_ARENA_MAX": "1",
}
"""For glibc: keep freed memory. Every step allocates and frees large activations, and returning their
memory to the system costs more than computing with them (keeping it made training on a virtual machine up to
ten times faster)."""

SHARE_CORES = {"OMP_WAIT_POLICY": "passive"}
"""For OpenMP: let waiting threads sleep. By default they spin and, if other programs use the same cores,
block the thread that they wait for (measured on 2 cores with a load of 12: an image takes 4 to 9 s instead
of more than 30)."""


@dataclass(frozen=True)
class Places:
    """The folders of one development environment."""

    dev: Path
    """The folder for everything that `dev.py` makes; not tracked by git."""
    comfyui: Path
    """The host's source tree, the folder with `main.py`."""
    comfyui_is_ours: bool
    """Whether the host is the pinned ComfyUI that `dev.py` unpacks; False for the user's own ComfyUI."""

    @property
    def venv(self) -> Path:
        return self.dev / "venv"

    @property
    def scripts(self) -> Path:
        """Folder of the environment's executables."""
        return self.venv / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        return self.scripts / ("python.exe" if os.name == "nt" else "python")

    @property
    def avatars(self) -> Path:
        """Folder whose `node_modules` draw the avatars."""
        return self.dev / "avatars"

    @property
    def pages(self) -> Path:
        """Folder whose `node_modules` check the browser code."""
        return self.dev / "pages"

    @property
    def downloads(self) -> Path:
        return self.dev / "downloads"

    @property
    def logs(self) -> Path:
        return self.dev / "logs"

    @property
    def stamps(self) -> Path:
        """Folder with one small file per finished step, which contains a hash of the step's inputs."""
        return self.dev / "stamps"

    def base(self, purpose: str) -> Path:
        """ComfyUI's base directory for `purpose`; each purpose has one, so a demo disturbs no `serve`."""
        return self.dev / "base" / purpose

    def variables(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the environment variables for a command inside the environment, based on `environ`."""
        inside = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        inside["PATH"] = os.pathsep.join([str(self.scripts), environ.get("PATH", "")])
        inside["VIRTUAL_ENV"] = str(self.venv)
        inside["REVELIO_DEV_DIR"] = str(self.dev)
        inside["REVELIO_AVATARS"] = str(self.avatars)
        inside["COMFYUI_PATH"] = str(self.comfyui)
        return {**KEEP_MEMORY, **SHARE_CORES, **inside}


def find_places(environ: Mapping[str, str] = os.environ) -> Places:
    """Find the folders. `REVELIO_DEV_DIR` replaces `.dev/`; `COMFYUI_PATH` names another ComfyUI."""
    dev = Path(environ.get("REVELIO_DEV_DIR") or ROOT / ".dev").absolute()
    ours = dev / "comfyui"
    given = environ.get("COMFYUI_PATH")
    comfyui = Path(given).absolute() if given else ours
    return Places(dev=dev, comfyui=comfyui, comfyui_is_ours=comfyui == ours)
