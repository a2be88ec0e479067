"""Make a base directory for ComfyUI: separate models, inputs and outputs, and a link to the pack."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .places import ROOT

PACK_FOLDER = "comfy_revelio"
"""The pack's folder name in `custom_nodes/`, the same as when ComfyUI Manager clones it."""

FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
"""ComfyUI stops without `custom_nodes` and cannot open its database without `user`."""

NOT_COPIED = (".git", ".dev", "output", "__pycache__", ".*_cache", "node_modules")


def make_base(base: Path, *, pack: Path | None = ROOT, clean: bool = True) -> Path:
    """Make the folder `base` ready for `--base-directory` and return it.

    pack: the folder to install as a custom node, or None for a ComfyUI without custom nodes.
    clean: delete what an earlier run left there.
    """
    if clean and base.exists():
        remove_base(base)
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    if pack is not None:
        link_pack(base / "custom_nodes" / PACK_FOLDER, pack)
    return base


def link_pack(link: Path, pack: Path = ROOT) -> None:
    """Make `link` point to the pack; where links are impossible, copy the pack on every call."""
    if link.exists() and link.resolve() == pack.resolve():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    _remove_link(link)
    _link(pack.resolve(), link)


def remove_base(base: Path) -> None:
    """Delete a base directory. Its link to the pack goes first, so that the pack itself is never touched."""
    _remove_link(base / "custom_nodes" / PACK_FOLDER)
    shutil.rmtree(base)


def _link(pack: Path, link: Path) -> None:
    try:
        link.symlink_to(pack, target_is_directory=True)
    except OSError:  # Windows allows symbolic links only to developers and administrators
        if sys.platform == "win32":
            try:
                import _winapi

                _winapi.CreateJunction(str(pack), str(link))
                return
            except OSError:
                pass  # this file system has no junctions
        shutil.copytree(pack, link, ignore=shutil.ignore_patterns(*NOT_COPIED))


def _remove_link(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        try:
            os.rmdir(link)  # removes a junction but not the folder it points to
        except OSError:
            shutil.rmtree(link)  # not a link but a copy of the pack
