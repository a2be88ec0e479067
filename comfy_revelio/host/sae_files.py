"""SAE files: ComfyUI's `sae` model folder, what is in it, and a loaded SAE that ComfyUI can manage."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from ..dictionary.dictionary import Dictionary
from ..dictionary.formats import load_dictionary, probe
from ..errors import RevelioError

FOLDER = "sae"
EXTENSIONS = {".safetensors", ".pt", ".pth", ".gz"}


@dataclass(frozen=True, eq=False)
class SAEHandle:
    """A loaded SAE. `patcher` lets ComfyUI move and count its weights like those of any other model."""

    dictionary: Dictionary
    patcher: ModelPatcher
    name: str

    @property
    def title(self) -> str:
        """How messages call it."""
        return f'SAE "{self.name}"'

    def get_ram_usage(self) -> int:
        return int(self.patcher.model_size())


def register_folder(bundled: Path) -> None:
    """Make `sae` a model folder: the extra model paths, `models/sae` and `bundled`, in this order.

    What another pack has registered under the same name stays.
    """
    roots, extensions = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    known: list[str] = list(roots)
    for root in (os.path.join(folder_paths.models_dir, FOLDER), str(bundled)):
        if root not in known:
            known.append(root)
    folder_paths.folder_names_and_paths[FOLDER] = (known, {*extensions, *EXTENSIONS})


def listing() -> list[str]:
    """Names of the files in the folder that hold an SAE, relative to their root."""
    return [name for name in folder_paths.get_filename_list(FOLDER) if check(name) is None]


def path_of(name: str) -> Path:
    """The file called `name`; RevelioError when there is none."""
    path = folder_paths.get_full_path(FOLDER, name) if name else None
    if path is None:
        root = folder_paths.get_folder_paths(FOLDER)[0]
        raise RevelioError(
            f'There is no SAE file "{name}"; put SAE files into {root} and choose one from the list.'
        )
    return Path(path)


def check(name: str) -> str | None:
    """None when `name` is an SAE that can be loaded, else the sentence that says why not."""
    try:
        path = path_of(name)
        stat = path.stat()
    except RevelioError as problem:
        return str(problem)
    except OSError as problem:
        return f'The SAE file "{name}" cannot be read ({problem.strerror}); check the file.'
    return _problem_of(str(path), stat.st_size, stat.st_mtime_ns)


def fingerprint(name: str) -> str:
    """Changes when the file does: its size and modification time."""
    try:
        stat = path_of(name).stat()
    except (RevelioError, OSError):
        return "missing"
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def load(name: str, hook_point: str = "", captured: str = "") -> SAEHandle:
    """Load the SAE file called `name`; hook_point and captured override what it says when not empty."""
    dictionary = load_dictionary(path_of(name), hook_point=hook_point.strip(), captured=captured)
    return handle(dictionary, name)


def handle(dictionary: Dictionary, name: str) -> SAEHandle:
    """Wrap a dictionary so that it loads and offloads with the models that use it."""
    dictionary.requires_grad_(False).eval()
    patcher = ModelPatcher(
        dictionary,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    # ComfyUI moves parameters of leaf modules; an SAE keeps its weights as buffers, so it moves as a whole.
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, "revelio", _move_whole)
    return SAEHandle(dictionary, patcher, name)


def _move_whole(patcher: ModelPatcher, device: Any = None, *_: Any) -> None:
    if device is not None:
        patcher.model.to(device)
        patcher.model.model_loaded_weight_memory = patcher.model_size()


@lru_cache(maxsize=1024)
def _problem_of(path: str, _size: int, _modified: int) -> str | None:
    """Why the file is no SAE, remembered until the file changes: the list is built for every page load."""
    try:
        probe(path)
    except RevelioError as problem:
        return str(problem)
    return None
