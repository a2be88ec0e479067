"""Checkpoints of dictionary_learning, all its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..sources import Source
from .checks import Content, FileLayout, require_int, require_same_size, require_tensors, unit_decoder


def _matches(content: Content, config: Content) -> bool:
    told = "trainer" in config or ("threshold" in content and not config)
    return told or "decoder.weight" in content or "group_sizes" in content


def _read(source: Source, content: Content) -> Dictionary:
    trainer = source.config.get("trainer", {})
    kind = trainer.get("dict_class") if isinstance(trainer, Mapping) else None
    if kind is None:
        kind = _class_by_keys(content)
    reader = _CLASSES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise source.refuse(f"its class is {kind!r}, but known are {', '.join(_CLASSES)}.")
    dictionary = reader(source, content)
    if isinstance(trainer, Mapping):
        require_same_size(
            source, dictionary.W_enc, d_in=trainer.get("activation_dim"), n=trainer.get("dict_size")
        )
        if isinstance(named := trainer.get("submodule_name"), str):
            dictionary.hook_point = named
    return dictionary


def _class_by_keys(content: Content) -> str:
    """The class of a file without a config. AutoEncoderTopK and BatchTopKSAE have the same keys: a threshold
    that was never set (-1) is top-k's."""
    if "group_sizes" in content:
        return "MatryoshkaBatchTopKSAE"
    if "r_mag" in content:
        return "GatedAutoEncoder"
    if "W_enc" in content:
        return "JumpReluAutoEncoder"
    if "decoder.bias" in content:
        return "AutoEncoderNew"
    if "b_dec" in content:
        threshold = content.get("threshold")
        unset = not isinstance(threshold, Tensor) or threshold.numel() != 1 or float(threshold) < 0
        return "AutoEncoderTopK" if unset else "BatchTopKSAE"
    return "AutoEncoder"


def _read_autoencoder(source: Source, content: Content) -> Dictionary:
    """relu((x - bias) W_e^T + b) W_d^T + bias; its loader gives the decoder unit columns."""
    t = require_tensors(
        source, content, {"bias": "d", "encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn"}
    )
    W_enc, b_enc, W_dec = unit_decoder(t["encoder.weight"], t["encoder.bias"], t["decoder.weight"].T)
    return Dictionary(
        W_enc,
        b_enc,
        W_dec,
        t["bias"],
        t["bias"],
        k=len(b_enc),
        activation="relu",
        hook_point=source.hook_point,
    )


def _read_autoencoder_new(source: Source, content: Content) -> Dictionary:
    """relu(x W_e^T + b) W_d^T + b_d."""
    t = require_tensors(
        source,
        content,
        {"encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn", "decoder.bias": "d"},
    )
    b = t["decoder.bias"]
    return Dictionary(
        t["encoder.weight"],
        t["encoder.bias"],
        t["decoder.weight"].T.contiguous(),
        torch.zeros_like(b),
        b,
        k=len(t["encoder.bias"]),
        activation="relu",
        hook_point=source.hook_point,
    )


def _read_topk(source: Source, content: Content) -> Dictionary:
    """topk(relu((x - b_dec) W_e^T + b)) W_d^T + b_dec; for BatchTopK, all above one threshold."""
    t = require_tensors(
        source,
        content,
        {"encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn", "b_dec": "d"},
        {"k": "int ", "threshold": ""},
    )
    trainer = source.config.get("trainer", {})
    stored = int(t["k"]) if "k" in t else None
    k = (
        stored
        if stored is not None
        else require_int(source, trainer if isinstance(trainer, Mapping) else {}, "k")
    )
    kind = trainer.get("dict_class") if isinstance(trainer, Mapping) and "dict_class" in trainer else None
    batch = (kind or _class_by_keys(content)) == "BatchTopKSAE"
    n = len(t["encoder.bias"])
    if not 1 <= k <= n:
        raise source.refuse(f"its k is {k}, but it has {n} features.")
    if batch and "threshold" not in t:
        raise source.refuse("it has no threshold, without which a BatchTopK dictionary cannot be used.")
    return Dictionary(
        t["encoder.weight"],
        t["encoder.bias"],
        t["decoder.weight"].T.contiguous(),
        t["b_dec"],
        t["b_dec"],
        k=n if batch else k,
        activation="jumprelu" if batch else "topk_relu",
        threshold=t["threshold"].expand(n).contiguous() if batch else None,
        hook_point=source.hook_point,
    )


def _read_matryoshka(source: Source, content: Content) -> Dictionary:
    """relu((x - b_dec) W_enc + b_enc) above one threshold, W_dec and b_dec: all groups, as it is loaded."""
    t = require_tensors(
        source,
        content,
        {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d", "threshold": ""},
        {"k": "int ", "group_sizes": "int g"},
    )
    n = len(t["b_enc"])
    return Dictionary(
        t["W_enc"].T.contiguous(),
        t["b_enc"],
        t["W_dec"],
        t["b_dec"],
        t["b_dec"],
        k=n,
        activation="jumprelu",
        threshold=t["threshold"].expand(n).contiguous(),
        hook_point=source.hook_point,
    )


def _read_jumprelu(source: Source, content: Content) -> Dictionary:
    """relu(h) where h > threshold, h = x W_enc + b_enc; b_dec is added on the way out only."""
    t = require_tensors(
        source, content, {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d", "threshold": "n"}
    )
    return Dictionary(
        t["W_enc"].T.contiguous(),
        t["b_enc"],
        t["W_dec"],
        torch.zeros_like(t["b_dec"]),
        t["b_dec"],
        k=len(t["b_enc"]),
        activation="jumprelu",
        threshold=t["threshold"],
        hook_point=source.hook_point,
    )


def _read_gated(source: Source, content: Content) -> Dictionary:
    """relu(g exp(r_mag) + mag_bias) where g + gate_bias > 0, g = (x - decoder_bias) W_e^T."""
    t = require_tensors(
        source,
        content,
        {"decoder_bias": "d", "encoder.weight": "nd", "r_mag": "n", "gate_bias": "n", "mag_bias": "n",
         "decoder.weight": "dn"},
    )  # fmt: skip
    return Dictionary(
        t["encoder.weight"],
        t["mag_bias"],
        t["decoder.weight"].T.contiguous(),
        t["decoder_bias"],
        t["decoder_bias"],
        k=len(t["mag_bias"]),
        activation="gated",
        gate_bias=t["gate_bias"],
        magnitude=t["r_mag"].exp(),
        hook_point=source.hook_point,
    )


_CLASSES: dict[str, Callable[[Source, Content], Dictionary]] = {
    "AutoEncoder": _read_autoencoder,
    "AutoEncoderNew": _read_autoencoder_new,
    "AutoEncoderTopK": _read_topk,
    "BatchTopKSAE": _read_topk,
    "MatryoshkaBatchTopKSAE": _read_matryoshka,
    "JumpReluAutoEncoder": _read_jumprelu,
    "GatedAutoEncoder": _read_gated,
}


LAYOUT = FileLayout(lambda _: "dictionary-learning", _matches, _read)
