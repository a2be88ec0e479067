"""Read the checkpoints of all dictionary classes of dictionary_learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..activations import Activation
from ..dictionary import Dictionary
from ..metadata import Provenance
from ..sources import Source
from .checks import Content, FileLayout, require_int, require_same_size, require_tensors, unit_decoder


def _matches(content: Content, config: Content) -> bool:
    has_trainer = "trainer" in config or ("threshold" in content and not config)
    return has_trainer or "decoder.weight" in content or "group_sizes" in content


def _read(source: Source, content: Content) -> Dictionary:
    trainer = source.config.get("trainer", {})
    kind = trainer.get("dict_class") if isinstance(trainer, Mapping) else None
    if kind is None:
        kind = _class_by_keys(content)
    reader = _CLASSES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise source.refuse(f"its class is {kind!r}, but must be one of {', '.join(_CLASSES)}.")
    dictionary = reader(source, content)
    if isinstance(trainer, Mapping):
        require_same_size(
            source, dictionary.W_enc, d_in=trainer.get("activation_dim"), n=trainer.get("dict_size")
        )
        if isinstance(named := trainer.get("submodule_name"), str):
            dictionary.hook_point = named
    return dictionary


def _class_by_keys(content: Content) -> str:
    """Return the class of a file without a config. AutoEncoderTopK and BatchTopKSAE have the same keys, but a
    threshold that was never set (-1) means AutoEncoderTopK."""
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


_LINEAR = {"encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn"}


def _read_autoencoder(source: Source, content: Content) -> Dictionary:
    """Read x^ = relu((x - bias) W_e^T + b) W_d^T + bias, with columns of W_d scaled to length 1."""
    t = require_tensors(source, content, {**_LINEAR, "bias": "d"})
    W_enc, b_enc, W_dec = unit_decoder(t["encoder.weight"], t["encoder.bias"], t["decoder.weight"].T)
    weights = (W_enc, b_enc, W_dec, t["bias"], t["bias"])
    return Dictionary(*weights, Activation("relu", len(b_enc)), provenance=Provenance(source.hook_point))


def _read_autoencoder_new(source: Source, content: Content) -> Dictionary:
    """Read x^ = relu(x W_e^T + b) W_d^T + b_d."""
    t = require_tensors(source, content, {**_LINEAR, "decoder.bias": "d"})
    W_dec, b_enc, b_out = t["decoder.weight"].T.contiguous(), t["encoder.bias"], t["decoder.bias"]
    weights = (t["encoder.weight"], b_enc, W_dec, torch.zeros_like(b_out), b_out)
    return Dictionary(*weights, Activation("relu", len(b_enc)), provenance=Provenance(source.hook_point))


def _read_topk(source: Source, content: Content) -> Dictionary:
    """Read x^ = topk(relu((x - b_dec) W_e^T + b)) W_d^T + b_dec; BatchTopK has a threshold, not top-k."""
    t = require_tensors(source, content, {**_LINEAR, "b_dec": "d"}, {"k": "int ", "threshold": ""})
    trainer = source.config.get("trainer", {})
    settings = trainer if isinstance(trainer, Mapping) else {}
    k = int(t["k"]) if "k" in t else require_int(source, settings, "k")
    batch = (settings.get("dict_class") or _class_by_keys(content)) == "BatchTopKSAE"
    n = len(t["encoder.bias"])
    if not 1 <= k <= n:
        raise source.refuse(f"its k is {k}, but it has {n} features.")
    if batch and "threshold" not in t:
        raise source.refuse("it has no threshold, which a BatchTopK dictionary needs.")
    activation = _one_threshold(t["threshold"], n) if batch else Activation("topk_relu", k)
    W_dec = t["decoder.weight"].T.contiguous()
    weights = (t["encoder.weight"], t["encoder.bias"], W_dec, t["b_dec"], t["b_dec"])
    return Dictionary(*weights, activation, provenance=Provenance(source.hook_point))


def _one_threshold(threshold: Tensor, n: int) -> Activation:
    """Return the activation of a trained BatchTopK dictionary: one threshold for all n features."""
    return Activation("jumprelu", n, threshold.expand(n).contiguous())


def _read_matryoshka(source: Source, content: Content) -> Dictionary:
    """Read x^ = z W_dec + b_dec, z = relu((x - b_dec) W_enc + b_enc) above one threshold, in all groups."""
    own = {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d", "threshold": ""}
    t = require_tensors(source, content, own, {"k": "int ", "group_sizes": "int g"})
    activation = _one_threshold(t["threshold"], len(t["b_enc"]))
    weights = (t["W_enc"].T.contiguous(), t["b_enc"], t["W_dec"], t["b_dec"], t["b_dec"])
    return Dictionary(*weights, activation, provenance=Provenance(source.hook_point))


def _read_jumprelu(source: Source, content: Content) -> Dictionary:
    """Read z = relu(h) where h > threshold, h = x W_enc + b_enc; only decoding uses b_dec."""
    own = {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d", "threshold": "n"}
    t = require_tensors(source, content, own)
    activation = Activation("jumprelu", len(t["b_enc"]), t["threshold"])
    weights = (t["W_enc"].T.contiguous(), t["b_enc"], t["W_dec"], torch.zeros_like(t["b_dec"]), t["b_dec"])
    return Dictionary(*weights, activation, provenance=Provenance(source.hook_point))


def _read_gated(source: Source, content: Content) -> Dictionary:
    """Read z = relu(g exp(r_mag) + mag_bias) where g + gate_bias > 0, g = (x - decoder_bias) W_e^T."""
    own = {"r_mag": "n", "gate_bias": "n", "mag_bias": "n", "decoder.weight": "dn"}
    t = require_tensors(source, content, {"decoder_bias": "d", "encoder.weight": "nd", **own})
    n, bias, W_dec = len(t["mag_bias"]), t["decoder_bias"], t["decoder.weight"].T.contiguous()
    activation = Activation("gated", n, gate_bias=t["gate_bias"], magnitude=t["r_mag"].exp())
    weights = (t["encoder.weight"], t["mag_bias"], W_dec, bias, bias)
    return Dictionary(*weights, activation, provenance=Provenance(source.hook_point))


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
