"""Find and open the files of a dictionary: a single file, or a folder with weights and a config.

Files are not trusted: safetensors headers are checked before a tensor is read, and pickles are read without
running any code in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import RevelioError
from ..files import tensor_file
from ..files.safe_pickle import Stub, read_pickle
from .orbax import is_orbax

CONFIG_NAMES = ("cfg.json", "config.json")
WEIGHT_NAMES = (
    "sae.safetensors",
    "sae_weights.safetensors",
    "state_dict.pth",
    "ae.pt",
    "sae_best.pt",
    "sae_final.pt",
)
_SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl.gz")
_BESIDE = ("mean.pt", "std.pt", "sparsity.safetensors")  # statistics beside the weights in some layouts
_MAX_CONFIG_BYTES = 1024 * 1024
REVELIO_CONFIG = "training.config.SDSAERunnerConfig"

# Some file and folder names contain the hook point: "unet.mid_block.attentions.0_k10_hidden5120_..."
_HOOK_POINT = re.compile(
    r"(?:unet\.|transformer\.)?("
    r"(?:down_blocks|up_blocks)\.\d+(?:\.attentions\.\d+)?"
    r"|mid_block(?:\.attentions\.\d+)?"
    r"|(?:single_)?transformer_blocks\.\d+(?:\.[a-z]\w*)*?"
    r"|(?:input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+"
    r"|text_encoder(?:_\d)?(?:\.[a-z]\w*)*?\.(?:layers|block)\.\d+(?:\.\d+)?"
    r")(?=_|$)"
)


@dataclass(frozen=True)
class Source:
    """The files of a dictionary, found at a path."""

    path: Path
    weights: Path
    """The file with the tensors."""
    config: dict[str, Any]
    """The content of the JSON config beside the weights; {} if there is no config."""

    def refuse(self, reason: str) -> RevelioError:
        """Return the error to raise when this source cannot be used."""
        return RevelioError(f"{self.path} cannot be used: {reason}")

    @property
    def hook_point(self) -> str:
        """The hook point in the name of the weights file or of a folder above it, or "" if there is none."""
        absolute = Path(os.path.abspath(self.weights))
        for part in (absolute.name, *(parent.name for parent in list(absolute.parents)[:4])):
            if match := _HOOK_POINT.search(part.removesuffix(".safetensors").removesuffix(".pt")):
                return match[1]
        return ""


def find(path: str | os.PathLike[str]) -> Source:
    """Find the weights and config at a path; raise RevelioError unless there is exactly one weights file."""
    path = Path(path)
    try:
        folder = path if path.is_dir() else None
        weights = path if folder is None else _weights_in(folder)
    except OSError as error:
        raise RevelioError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    return Source(path, weights, _config_beside(weights))


def read(source: Source) -> Mapping[str, Any]:
    """Read the weights file into a dict: name -> tensor, or in some layouts nested dicts and plain values."""
    if _is_safetensors(source.weights):
        header = tensor_file.read_header(source.weights)
        return tensor_file.read_tensors(source.weights, list(header.tensors))
    content = read_pickle(source.weights, stubs=(REVELIO_CONFIG,))
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise source.refuse("it does not contain a dict of named tensors.")
    return content


def read_beside(source: Source, name: str) -> Tensor | None:
    """Read a file beside the weights with a single tensor, such as mean.pt; None if the file is missing."""
    file = source.weights.with_name(name)
    if not file.is_file():
        return None
    content = read_pickle(file)
    if not isinstance(content, Tensor):
        raise RevelioError(f"{file} does not contain a tensor; get the file again, or remove it.")
    return content


def looks_like_one(weights: Path) -> bool:
    """Whether a known layout uses this file name for its weights; the file itself is not read."""
    return weights.name in WEIGHT_NAMES or weights.name.startswith("final_k_sparse_autoencoder")


def _is_safetensors(file: Path) -> bool:
    return file.suffix == ".safetensors"


def _weights_in(folder: Path) -> Path:
    """Find the weights file in a folder or in its subfolder `final` (sdxl-unbox, Concept Steerers)."""
    for parent in (folder, folder / "final"):
        for name in WEIGHT_NAMES:
            if (parent / name).is_file():
                return parent / name
    files = sorted(
        entry
        for entry in folder.iterdir()
        if entry.name.endswith(_SUFFIXES) and entry.name not in _BESIDE and entry.is_file()
    )
    if len(files) == 1:
        return files[0]
    known = ", ".join(WEIGHT_NAMES)
    if is_orbax(folder):
        raise RevelioError(
            f"The folder {folder} is an Orbax checkpoint; convert it first: "
            "python -m comfy_revelio convert FOLDER OUT.safetensors."
        )
    if not files:
        raise RevelioError(f"There is no dictionary in the folder {folder}; expected a file named {known}.")
    raise RevelioError(
        f"The folder {folder} contains several files ({', '.join(file.name for file in files[:4])}); name "
        "the file to load."
    )


def _config_beside(weights: Path) -> dict[str, Any]:
    for name in CONFIG_NAMES:
        file = weights.with_name(name)
        try:
            if not file.is_file():
                continue
            if file.stat().st_size > _MAX_CONFIG_BYTES:
                raise RevelioError(f"{file} is too large for a config; get the file again.")
            text = file.read_bytes()
        except OSError as error:
            raise RevelioError(f"{file} cannot be read ({error.strerror}); check the file.") from None
        config = tensor_file.parse_json(file, text, "content")
        if not isinstance(config, dict):
            raise RevelioError(f"{file} is broken: it is not a JSON object; get the file again.")
        return config
    return {}


__all__ = ["REVELIO_CONFIG", "Source", "Stub", "find", "looks_like_one", "read", "read_beside"]
