"""Read and write the native layout: one .safetensors file. Files may come from anywhere and are not trusted.

Tensors, float16 or float32: W_enc [n, d], b_enc [n], W_dec [n, d], b_in [d], b_out [d]; those of
OPTIONAL_WEIGHTS and of the modulation's weights that the kind needs; optionally stats.mean_active [n],
stats.rate [n] and stats.mean_map [n, h, w]; if there are c concepts with m features and q kinds of image,
concepts.features [c, m] int32, concepts.amount and concepts.share [c, q, m, h, w], and concepts.reader
[q, d + 1]. Metadata: format
"revelio-sae", format_version "1", and config, a JSON object with kind, k, activation, hook_point, captured,
pooling, model_family, figures (the metrics), labels, and normalise, clip and concepts (the c names) unless
these three have their defaults.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RevelioError
from ..files import tensor_file
from ..files.json_fields import Fields
from .activations import ACTIVATION_KINDS, Activation, ActivationKind
from .concept import Concept
from .dictionary import OPTIONAL_WEIGHTS, WEIGHTS, Dictionary
from .feature_stats import FeatureStats
from .input_transform import NORMALISATIONS, InputTransform
from .metadata import CAPTURED, POOLING, Extras, Provenance
from .timestep_modulation import NAMES as TIME_WEIGHTS
from .timestep_modulation import Modulation

FORMAT = "revelio-sae"
FORMAT_VERSION = "1"
_ADVICE = "get the file again"
KINDS: dict[ActivationKind, str] = {
    "topk_relu": "k_sae",
    "topk_signed": "k_sae",
    "groupmax": "k_sae",
    "relu": "relu_sae",
    "jumprelu": "jumprelu_sae",
    "gated": "gated_sae",
    "pursuit": "itda",
}
"""Kind of activation -> kind of dictionary."""
TEMPORAL = "temporal_sae"
"""The kind of a dictionary that depends on the timestep."""

_STATS = ("stats.mean_active", "stats.rate", "stats.mean_map")
_CONFIG_KEYS = {
    "kind", "k", "activation", "hook_point", "captured", "pooling", "model_family", "figures", "labels",
}  # fmt: skip
_USUAL: dict[str, Any] = {"normalise": "none", "clip": 0.0, "concepts": []}
_FLOATS = ("F16", "BF16", "F32")
_CONCEPT_FEATURES, _CONCEPT_READER = "concepts.features", "concepts.reader"
_CONCEPT_MAPS = ("concepts.amount", "concepts.share")


def is_native(path: str | os.PathLike[str]) -> bool:
    """Whether the header of a .safetensors file names the native layout as its format."""
    return tensor_file.read_header(path).metadata.get("format") == FORMAT


def read_native(path: str | os.PathLike[str]) -> Dictionary:
    """Load a dictionary from a file of the native layout, with the weights in float32.

    Raises RevelioError if the file is missing or broken, has another layout, or contains numbers that are not
    finite.
    """
    config = peek_native(path)
    tensors = tensor_file.read_tensors(path, config["tensors"])
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise _broken(path, f"{name} contains numbers that are not finite")
    numbers = tensors.pop(_CONCEPT_FEATURES, torch.zeros(0, 0)).tolist()
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    maps = (tensors[name] for name in _CONCEPT_MAPS) if config["concepts"] else ((), ())
    concepts = {
        name: Concept(tuple(features), amount, share, tensors[_CONCEPT_READER])
        for name, features, amount, share in zip(config["concepts"], numbers, *maps, strict=True)
    }
    stats = None
    if "stats.mean_active" in tensors:
        stats = FeatureStats(*(tensors.get(name) for name in _STATS))  # type: ignore[arg-type]
    modulation = None
    if config["kind"] == TEMPORAL:
        modulation = Modulation(*(tensors[name] for name in TIME_WEIGHTS))
    W_enc, b_enc, W_dec, b_in, b_out = (tensors[name] for name in WEIGHTS)
    threshold, gate_bias, magnitude, whitening, whitening_bias = map(tensors.get, OPTIONAL_WEIGHTS)
    weights = (W_enc, b_enc, W_dec, b_in, b_out)
    return Dictionary(
        *weights,
        Activation(config["activation"], config["k"], threshold, gate_bias, magnitude),
        inputs=InputTransform(
            config["normalise"], whitening, whitening_bias, float(config["clip"]), modulation
        ),
        provenance=Provenance(
            config["hook_point"], config["captured"], config["pooling"], FORMAT, config["model_family"]
        ),
        extras=Extras(config["figures"], config["labels"], concepts, stats),
    )


def kind_of(dictionary: Dictionary) -> str:
    """Return the kind of a dictionary, under the name that configs use."""
    return TEMPORAL if dictionary.modulation is not None else KINDS[dictionary.activation]


def config_of(dictionary: Dictionary) -> dict[str, Any]:
    """Return a dictionary's config as plain values; entries of _USUAL with their defaults are omitted."""
    config = {
        "kind": kind_of(dictionary),
        "k": dictionary.k,
        "activation": dictionary.activation,
        "hook_point": dictionary.hook_point,
        "captured": dictionary.captured,
        "pooling": dictionary.pooling,
        "model_family": dictionary.model_family,
        "figures": {name: float(value) for name, value in dictionary.metrics.items()},
        "labels": {name: [int(f) for f in features] for name, features in dictionary.labels.items()},
    }
    now = {
        "normalise": dictionary.normalise,
        "clip": float(dictionary.clip),
        "concepts": list(dictionary.concepts),
    }
    return config | {name: value for name, value in now.items() if value != _USUAL[name]}


def save_dictionary(
    dictionary: Dictionary, path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float16
) -> None:
    """Write a dictionary to a file of the native layout, with weights in float16 (default) or float32."""
    if dtype not in (torch.float16, torch.float32):
        raise RevelioError(f"Dictionaries must be saved as float16 or float32; got {dtype}.")
    if Path(path).suffix != ".safetensors":
        raise RevelioError(f"The name of a dictionary file must end in .safetensors; got {Path(path).name}.")
    own: dict[str, Tensor | None] = {
        name: getattr(dictionary, name) for name in (*WEIGHTS, *OPTIONAL_WEIGHTS)
    }
    if dictionary.modulation is not None:
        own |= {name: getattr(dictionary.modulation, name) for name in TIME_WEIGHTS}
    if (stats := dictionary.stats) is not None:
        own |= {f"stats.{name}": getattr(stats, name) for name in ("mean_active", "rate", "mean_map")}
    own |= _stacked(dictionary)
    tensors = {
        # never round the reader, which is small and decides the kind of an image
        name: tensor.to(torch.float32 if name == _CONCEPT_READER else dtype)
        for name, tensor in own.items()
        if tensor is not None
    }
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RevelioError(f"{name} has numbers that are not finite in {dtype}; save as float32.")
    if concepts := list(dictionary.concepts.values()):
        numbers = [concept.features for concept in concepts]
        tensors[_CONCEPT_FEATURES] = torch.tensor(numbers, dtype=torch.int32)
    config = config_of(dictionary)
    text = json.dumps(config, allow_nan=False)
    tensor_file.write(path, tensors, {"format": FORMAT, "format_version": FORMAT_VERSION, "config": text})


def _stacked(dictionary: Dictionary) -> dict[str, Tensor]:
    """Return the concepts' stacked maps and their reader, with tensor names; the concepts must be alike."""
    concepts = list(dictionary.concepts.values())
    if not concepts:
        return {}
    first = concepts[0]
    alike = (c.amount.shape == first.amount.shape and torch.equal(c.reader, first.reader) for c in concepts)
    if not all(alike):
        raise RevelioError(
            "The concepts of one file must have the same number of features, map size and kinds of image."
        )
    stacks = (torch.stack([c.amount for c in concepts]), torch.stack([c.share for c in concepts]))
    return {**dict(zip(_CONCEPT_MAPS, stacks, strict=True)), _CONCEPT_READER: first.reader}


def peek_native(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check the header of a dictionary file; no tensor is read.

    Returns a dict: the config plus d_model, n_features, has_stats, has_maps and tensors (their names).
    """
    otherwise = (
        f"is not a dictionary of a known layout: its metadata lacks format {FORMAT!r}; "
        "choose a file saved by Revelio."
    )
    header = tensor_file.read_format(path, FORMAT, FORMAT_VERSION, otherwise)
    config = _checked_config(path, tensor_file.parse_json(path, header.metadata.get("config", ""), "config"))
    n, d = _check_shapes(path, header, config["kind"] == TEMPORAL)
    _check_concepts(path, header, len(config["concepts"]), d)
    if config["k"] > n:
        raise _broken(path, f"k is {config['k']}, but there are only {n} features")
    for label, features in config["labels"].items():
        if any(feature >= n for feature in features):
            raise _broken(path, f"label {label!r} names a feature outside 0 to {n - 1}")
    return {
        **config,
        "d_model": d,
        "n_features": n,
        "has_stats": "stats.mean_active" in header.tensors,
        "has_maps": "stats.mean_map" in header.tensors,
        "tensors": sorted(header.tensors),
    }


def _checked_config(path: str | os.PathLike[str], config: Any) -> dict[str, Any]:
    """Check a config and return the config with missing entries set to their defaults."""
    config = {**_USUAL, **config} if isinstance(config, dict) else config
    fields = Fields(path, config, _ADVICE, "config", (*_CONFIG_KEYS, *_USUAL))
    activation = fields.choice("activation", ACTIVATION_KINDS)
    fields.choice("kind", (KINDS[activation], TEMPORAL))
    fields.choice("captured", CAPTURED)
    fields.choice("pooling", POOLING)
    fields.choice("normalise", NORMALISATIONS)
    fields.number("clip", least=0)
    fields.count("k", least=1)
    fields.text("hook_point")
    fields.text("model_family")
    fields.named_numbers("figures")
    fields.named_counts("labels")
    concepts = fields.texts("concepts")
    if len(set(concepts)) != len(concepts):
        raise fields.broken("its config names a concept twice")
    return fields.table


def _check_shapes(
    path: str | os.PathLike[str], header: tensor_file.Header, temporal: bool
) -> tuple[int, int]:
    """Check that no tensor is missing or has a wrong shape; return (n_features, d_model).

    The optional weights are checked later, by the class Dictionary.
    """
    tensors = header.tensors
    own = (*WEIGHTS, *(TIME_WEIGHTS if temporal else ()))
    missing = [name for name in own if name not in tensors]
    if missing:
        raise _broken(path, f"the tensors {', '.join(missing)} are missing")
    extra = sorted(
        set(tensors) - {*own, *OPTIONAL_WEIGHTS, *_STATS, _CONCEPT_FEATURES, *_CONCEPT_MAPS, _CONCEPT_READER}
    )
    if extra:
        raise _broken(path, f"it has the unknown tensors {', '.join(extra)}")
    if any(name in tensors for name in _STATS) and "stats.mean_active" not in tensors:
        raise _broken(path, "its feature statistics are incomplete")
    shape = tensors["W_enc"].shape
    if len(shape) != 2 or 0 in shape:
        raise _broken(path, f"W_enc must be [features, width] and not empty, but is {list(shape)}")
    n, d = shape
    expected = {"b_enc": (n,), "W_dec": (n, d), "b_in": (d,), "b_out": (d,), "stats.mean_active": (n,),
                "stats.rate": (n,)}  # fmt: skip
    for name, info in tensors.items():
        if name == _CONCEPT_FEATURES:
            continue
        if info.dtype not in _FLOATS:
            raise _broken(path, f"{name} is {info.dtype}, but must be one of {', '.join(_FLOATS)}")
        if name in expected and info.shape != expected[name]:
            raise _broken(path, f"{name} is {list(info.shape)}, but W_enc needs {list(expected[name])}")
        if name == "stats.mean_map" and (len(info.shape) != 3 or info.shape[0] != n or 0 in info.shape):
            raise _broken(path, f"{name} is {list(info.shape)}, but must be [{n}, height, width]")
    return n, d


def _check_concepts(path: str | os.PathLike[str], header: tensor_file.Header, count: int, d: int) -> None:
    """Check that the concepts' tensors fit together, or are absent if the config names no concepts."""
    found = [header.tensors.get(name) for name in (_CONCEPT_FEATURES, *_CONCEPT_MAPS, _CONCEPT_READER)]
    if not count and not any(found):
        return
    features, amount, share, reader = found
    if features is None or amount is None or share is None or reader is None or not count:
        raise _broken(path, "its concepts are incomplete")
    sound = features.dtype == "I32" and len(features.shape) == 2 and 0 not in features.shape
    if not sound or features.shape[0] != count:
        raise _broken(path, f"{_CONCEPT_FEATURES} must be whole numbers [{count}, features]")
    shape = amount.shape
    if shape != share.shape or len(shape) != 5 or 0 in shape or (shape[0], shape[2]) != features.shape:
        raise _broken(path, "the maps of its concepts must be [concepts, kinds, features, height, width]")
    if reader.shape != (shape[1], d + 1):
        raise _broken(path, f"{_CONCEPT_READER} is {list(reader.shape)}, but must be [{shape[1]}, {d + 1}]")


def _broken(path: str | os.PathLike[str], reason: str) -> RevelioError:
    return RevelioError(f"{path} is broken: {reason}; {_ADVICE}.")
