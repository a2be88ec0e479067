"""SAE files: register ComfyUI's `sae` model folder, list its files, and load SAEs that ComfyUI can manage."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from ..analysis.index import IndexHead, dictionary_id, index_path, read_head
from ..analysis.index.feature_index import labels_by_name
from ..dictionary.dictionary import Dictionary
from ..dictionary.load import check_file, load_dictionary
from ..errors import RevelioError

FOLDER = "sae"
EXTENSIONS = {".safetensors", ".pt", ".pth", ".gz"}
_bundled: Path | None = None
"""The folder of the SAEs that come with the pack."""


@dataclass(frozen=True, eq=False)
class SAEHandle:
    """A loaded SAE."""

    dictionary: Dictionary
    patcher: ModelPatcher
    """Makes ComfyUI move the weights between devices and count their memory, like those of any model."""
    name: str
    """The name of the SAE file, as listed by the node Load SAE."""
    index: IndexHead | None = None
    """The head of the SAE's feature index, if the SAE has one."""

    @property
    def title(self) -> str:
        """What messages call the SAE."""
        return f'SAE "{self.name}"'

    def get_ram_usage(self) -> int:
        """Return the size of the weights in bytes, for ComfyUI's cache."""
        return int(self.patcher.model_size())


def register_folder(bundled: Path) -> None:
    """Register `sae` as a model folder: already registered folders first, then `models/sae`, then `bundled`.

    Folders may be registered already by the user's extra model paths or by another pack.
    """
    roots, extensions = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    global _bundled
    _bundled = bundled
    known: list[str] = list(roots)
    for root in (os.path.join(folder_paths.models_dir, FOLDER), str(bundled)):
        if root not in known:
            known.append(root)
    folder_paths.folder_names_and_paths[FOLDER] = (known, {*extensions, *EXTENSIONS})


def listing() -> list[str]:
    """Return the names (paths relative to their `sae` folder) of all SAE files that can be loaded."""
    return [name for name in folder_paths.get_filename_list(FOLDER) if check(name) is None]


def path_of(name: str) -> Path:
    """Return the path of the SAE file called `name`; raise RevelioError if no such file exists."""
    path = folder_paths.get_full_path(FOLDER, name) if name else None
    if path is None:
        root = folder_paths.get_folder_paths(FOLDER)[0]
        raise RevelioError(
            f'There is no SAE file "{name}"; put SAE files into {root} and choose one from the list.'
        )
    return Path(path)


def check(name: str) -> str | None:
    """Return None if the SAE file `name` can be loaded, else a sentence that explains why not."""
    try:
        path = path_of(name)
        stat = path.stat()
    except RevelioError as problem:
        return str(problem)
    except OSError as problem:
        return f'The SAE file "{name}" cannot be read ({problem.strerror}); check the file.'
    return _problem_of(str(path), stat.st_size, stat.st_mtime_ns)


def fingerprint(name: str) -> str:
    """Return a fingerprint (sizes, modification times) that changes whenever the file or its index does."""
    try:
        stats = [path.stat() for path in (path_of(name), index_of(name)) if path is not None]
    except (RevelioError, OSError):
        return "missing"
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)


def load(name: str, hook_point: str = "", captured: str = "") -> SAEHandle:
    """Load the SAE file called `name` and add the labels of its feature index to the file's own labels.

    hook_point, captured: if not empty, these replace the values in the file.
    """
    dictionary = load_dictionary(path_of(name), hook_point=hook_point.strip(), captured=captured)
    index = _index_for(dictionary, name)
    if index is not None:
        own = {label.lower() for label in dictionary.labels}
        found = labels_by_name(index.labels)
        dictionary.labels |= {label: list(f) for label, f in found.items() if label.lower() not in own}
    return handle(dictionary, name, index)


def index_of(name: str) -> Path | None:
    """Return the path of the SAE file's feature index in any of the `sae` folders; None if it has none."""
    found = folder_paths.get_full_path(FOLDER, index_path(name).as_posix()) if name else None
    return None if found is None else Path(found)


def index_target(name: str) -> Path:
    """Return where to write an SAE file's index: next to the file, but for bundled files in models/sae."""
    path = path_of(name)
    if _bundled is not None and _bundled.resolve() in path.resolve().parents:
        return Path(folder_paths.get_folder_paths(FOLDER)[0]) / index_path(name)
    return index_path(path)


def handle(dictionary: Dictionary, name: str, index: IndexHead | None = None) -> SAEHandle:
    """Wrap a dictionary so that ComfyUI loads and offloads it together with the models that use it."""
    dictionary.requires_grad_(False).eval()
    patcher = ModelPatcher(
        dictionary,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    # an SAE's weights are buffers, but ModelPatcher moves only the parameters of modules to the device
    # (_load_list in comfy/model_patcher.py, seen in 0.3.75)
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, "revelio", _move_buffers)
    return SAEHandle(dictionary, patcher, name, index)


def _index_for(dictionary: Dictionary, name: str) -> IndexHead | None:
    """Return the head of the SAE's feature index, or None if there is none that fits; log why it does not."""
    path = index_of(name)
    if path is None:
        return None
    try:
        head = read_head(path)
        if head.dictionary == dictionary_id(dictionary):
            return head
        logging.warning("Revelio: %s belongs to another SAE than %s; make the index again.", path, name)
    except RevelioError as problem:
        logging.warning("Revelio: %s", problem)
    return None


def _move_buffers(patcher: ModelPatcher, device: torch.device | None = None, *_: Any) -> None:
    if device is not None:
        patcher.model.to(device)
        patcher.model.model_loaded_weight_memory = patcher.model_size()


@lru_cache(maxsize=1024)
def _problem_of(path: str, _size: int, _modified: int) -> str | None:
    """Return why the file cannot be loaded, or None. Cached, because every page load checks all files."""
    try:
        check_file(path)
    except RevelioError as problem:
        return str(problem)
    return None
