"""Reading and writing dictionary files. Written for files from anywhere: nothing is trusted.

The native layout is one .safetensors file. Tensors, float16 or float32: W_enc [n, d], b_enc [n],
W_dec [n, d], b_in [d], b_out [d]; optionally stats.mean_active [n], stats.rate [n] and
stats.mean_map [n, h, w]. Metadata: format "revelio-sae", format_version "1", and config, a JSON
object with kind, k, activation, hook_point, captured, pooling, model_family, figures, labels.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import tensor_file
from ..errors import RevelioError
from .dictionary import ACTIVATIONS, CAPTURED, POOLING, Dictionary
from .stats import FeatureStats

FORMAT = "revelio-sae"
FORMAT_VERSION = "1"
KINDS = ("k_sae",)

_WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_in", "b_out")
_STATS = ("stats.mean_active", "stats.rate", "stats.mean_map")
_CONFIG_KEYS = {
    "kind", "k", "activation", "hook_point", "captured", "pooling", "model_family", "figures", "labels",
}  # fmt: skip
_FLOATS = ("F16", "BF16", "F32")


def load_dictionary(
    path: str | os.PathLike[str],
    *,
    hook_point: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Dictionary:
    """Load a dictionary file.

    hook_point: replaces the hook point named in the file; None or "" keeps it.
    dtype: the type the weights are kept in; maths is float32 whatever it is.
    Raises RevelioError when the file is missing, broken, of an unknown layout, or holds numbers
    that are not finite.
    """
    config = peek(path)
    names = [name for name in (*_WEIGHTS, *_STATS) if name in config["tensors"]]
    tensors = tensor_file.read_tensors(path, names)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise _broken(path, f"{name} holds numbers that are not finite")
    stats = None
    if "stats.rate" in tensors:
        maps = tensors.get("stats.mean_map")
        stats = FeatureStats(
            tensors["stats.mean_active"].float(),
            tensors["stats.rate"].float(),
            None if maps is None else maps.float(),
        )
    dictionary = Dictionary(
        *(tensors[name].to(dtype) for name in _WEIGHTS),
        k=config["k"],
        activation=config["activation"],
        hook_point=hook_point or config["hook_point"],
        captured=config["captured"],
        pooling=config["pooling"],
        source_format=FORMAT,
        model_family=config["model_family"],
        figures=config["figures"],
        labels=config["labels"],
        stats=stats,
    )
    return dictionary.to(device)


def save_dictionary(
    dictionary: Dictionary, path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float16
) -> None:
    """Write the native layout, with weights in float16 (default) or float32."""
    if dtype not in (torch.float16, torch.float32):
        raise RevelioError(f"Dictionaries are saved as float16 or float32, not {dtype}.")
    if Path(path).suffix != ".safetensors":
        raise RevelioError(f"The name of a dictionary file ends in .safetensors; {Path(path).name} does not.")
    tensors: dict[str, Tensor] = {name: getattr(dictionary, name) for name in _WEIGHTS}
    if (stats := dictionary.stats) is not None:
        tensors |= {"stats.mean_active": stats.mean_active, "stats.rate": stats.rate}
        if stats.mean_map is not None:
            tensors["stats.mean_map"] = stats.mean_map
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RevelioError(f"{name} has numbers that {dtype} cannot hold; save as float32.")
    config = {
        "kind": "k_sae",
        "k": dictionary.k,
        "activation": dictionary.activation,
        "hook_point": dictionary.hook_point,
        "captured": dictionary.captured,
        "pooling": dictionary.pooling,
        "model_family": dictionary.model_family,
        "figures": {name: float(value) for name, value in dictionary.figures.items()},
        "labels": {name: [int(f) for f in features] for name, features in dictionary.labels.items()},
    }
    text = json.dumps(config, allow_nan=False)
    tensor_file.write(path, tensors, {"format": FORMAT, "format_version": FORMAT_VERSION, "config": text})


def peek(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the header of a dictionary file says, checked, without reading a tensor.

    Returns the config plus d_model, n_features, has_stats, has_maps and tensors (the names).
    Raises RevelioError for anything that is not a sound dictionary file.
    """
    header = tensor_file.read_header(path)
    if header.metadata.get("format") != FORMAT:
        raise RevelioError(
            f"{path} is no dictionary of a known layout: its metadata lacks format {FORMAT!r}; "
            "choose a file saved by Revelio."
        )
    if (version := header.metadata.get("format_version")) != FORMAT_VERSION:
        raise RevelioError(
            f"{path} has format version {version!r}, but this Revelio reads "
            f"{FORMAT_VERSION!r}; update Revelio."
        )
    config = tensor_file.parse_json(path, header.metadata.get("config", ""), "config")
    _check_config(path, config)
    n, d = _check_shapes(path, header)
    if config["k"] > n:
        raise _broken(path, f"k is {config['k']}, more than its {n} features")
    for label, features in config["labels"].items():
        if any(feature >= n for feature in features):
            raise _broken(path, f"label {label!r} names a feature outside 0 to {n - 1}")
    return {
        **config,
        "d_model": d,
        "n_features": n,
        "has_stats": "stats.rate" in header.tensors,
        "has_maps": "stats.mean_map" in header.tensors,
        "tensors": sorted(header.tensors),
    }


def _check_config(path: str | os.PathLike[str], config: Any) -> None:
    def refuse(reason: str) -> RevelioError:
        return _broken(path, f"its config {reason}")

    if not isinstance(config, dict) or set(config) != _CONFIG_KEYS:
        raise refuse(f"must have exactly the entries {', '.join(sorted(_CONFIG_KEYS))}")
    choices = {"kind": KINDS, "activation": ACTIVATIONS, "captured": CAPTURED, "pooling": POOLING}
    for name, known in choices.items():
        if config[name] not in known:
            raise refuse(f"has {name} {config[name]!r}, but known are {', '.join(known)}")
    if type(config["k"]) is not int or config["k"] < 1:
        raise refuse(f"has k {config['k']!r}, but k is a whole number from 1")
    for name in ("hook_point", "model_family"):
        if not isinstance(config[name], str):
            raise refuse(f"has a {name} that is no text")
    figures, labels = config["figures"], config["labels"]
    if not isinstance(figures, dict) or not all(_is_number(value) for value in figures.values()):
        raise refuse("has figures that are no table of numbers")
    if not isinstance(labels, dict) or not all(_is_feature_list(value) for value in labels.values()):
        raise refuse("has labels that are no table of feature lists")


def _check_shapes(path: str | os.PathLike[str], header: tensor_file.Header) -> tuple[int, int]:
    """(n_features, d_model), after all tensors were found and agree with each other."""
    tensors = header.tensors
    missing = [name for name in _WEIGHTS if name not in tensors]
    if missing:
        raise _broken(path, f"the tensors {', '.join(missing)} are missing")
    extra = sorted(set(tensors) - {*_WEIGHTS, *_STATS})
    if extra:
        raise _broken(path, f"it has the unknown tensors {', '.join(extra)}")
    if ("stats.mean_active" in tensors) != ("stats.rate" in tensors) or (
        "stats.mean_map" in tensors and "stats.rate" not in tensors
    ):
        raise _broken(path, "its feature statistics are incomplete")
    shape = tensors["W_enc"].shape
    if len(shape) != 2 or 0 in shape:
        raise _broken(path, f"W_enc must be [features, width] and not empty, but is {list(shape)}")
    n, d = shape
    expected = {"b_enc": (n,), "W_dec": (n, d), "b_in": (d,), "b_out": (d,), "stats.mean_active": (n,),
                "stats.rate": (n,)}  # fmt: skip
    for name, info in tensors.items():
        if info.dtype not in _FLOATS:
            raise _broken(path, f"{name} is {info.dtype}, but must be one of {', '.join(_FLOATS)}")
        if name in expected and info.shape != expected[name]:
            raise _broken(path, f"{name} is {list(info.shape)}, but W_enc asks for {list(expected[name])}")
        if name == "stats.mean_map" and (len(info.shape) != 3 or info.shape[0] != n or 0 in info.shape):
            raise _broken(path, f"{name} is {list(info.shape)}, but must be [{n}, height, width]")
    return n, d


def _broken(path: str | os.PathLike[str], reason: str) -> RevelioError:
    return RevelioError(f"{path} is broken: {reason}; get the file again.")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_feature_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
