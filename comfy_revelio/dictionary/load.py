"""Load dictionaries of any layout, save dictionaries, and inspect dictionary files without loading them."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..errors import checked_choice
from ..files import tensor_file
from . import sources
from .dictionary import OPTIONAL_WEIGHTS, WEIGHTS, Dictionary
from .layouts import read_layout, recognise
from .metadata import CAPTURED
from .native import config_of, is_native, peek_native, read_native, save_dictionary

__all__ = ["check_file", "describe_file", "load_dictionary", "save_dictionary"]


def load_dictionary(
    path: str | os.PathLike[str],
    *,
    hook_point: str | None = None,
    captured: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Dictionary:
    """Load a dictionary from a file or folder that has any layout of docs/formats.md.

    hook_point, captured: used instead of the hook point and captured value in the file, unless None or "".
    dtype: the type in which the weights are kept in memory; all computations are in float32 anyway.

    Raises RevelioError if the file is missing or broken, has an unknown layout, would run code, or contains
    numbers that are not finite.
    """
    chosen = checked_choice("captured", captured, CAPTURED) if captured else None
    source = sources.find(path)
    if source.weights.suffix == ".safetensors" and is_native(source.weights):
        dictionary = read_native(source.weights)
    else:
        dictionary = read_layout(source, sources.read(source))
    dictionary.hook_point = hook_point or dictionary.hook_point
    dictionary.captured = chosen or dictionary.captured
    for name in (*WEIGHTS, *OPTIONAL_WEIGHTS):
        if (tensor := getattr(dictionary, name)) is not None:
            setattr(dictionary, name, tensor.to(dtype))
    return dictionary.to(device)


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a dictionary file contains, as a dict: kind, k, d_model, n_features, hook_point and so on.

    If the file has the native layout, only its header is read; files of other layouts are loaded.
    """
    source = sources.find(path)
    if source.weights.suffix == ".safetensors" and is_native(source.weights):
        return peek_native(source.weights)
    dictionary = load_dictionary(path)
    return {
        **config_of(dictionary),
        "source_format": dictionary.source_format,
        "d_model": dictionary.d_model,
        "n_features": dictionary.n_features,
        "has_stats": dictionary.stats is not None,
        "has_maps": dictionary.stats_mean_map is not None,
    }


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise RevelioError unless a file or folder looks like a dictionary; no tensor is read.

    This check selects the files that a user can choose. A file that passes may still turn out to be broken.
    """
    source = sources.find(path)
    if source.weights.suffix != ".safetensors":
        if not sources.looks_like_one(source.weights):
            raise source.refuse("no known layout has files of this name.")
    elif is_native(source.weights):
        peek_native(source.weights)
    elif recognise(tensor_file.read_header(source.weights).tensors, source.config) is None:
        raise source.refuse("its tensors match no known layout of a dictionary.")
