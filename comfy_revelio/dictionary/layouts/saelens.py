"""Read the checkpoints of SAELens, from before and after version 6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..activations import Activation, ActivationKind
from ..dictionary import Dictionary
from ..input_transform import InputTransform, Normalisation
from ..metadata import Provenance
from ..sources import Source
from .checks import Content, FileLayout, require_int, require_same_size, require_tensors, unit_decoder


def _matches(content: Content, config: Content) -> bool:
    return {"W_enc", "W_dec", "b_dec"} <= set(content)


_NORMALISATIONS: dict[str, Normalisation] = {
    "none": "none",
    "expected_average_only_in": "none",  # applies to the training data, not to the dictionary's inputs
    "constant_norm_rescale": "rms",
    "layer_norm": "layernorm",
}

_KINDS: dict[str, ActivationKind] = {
    "standard": "relu",
    "topk": "topk_relu",
    "batchtopk": "jumprelu",
    "jumprelu": "jumprelu",
    "gated": "gated",
}
"""SAELens architecture -> kind of activation."""


def _read(source: Source, content: Content) -> Dictionary:
    """Read a standard, topk, batchtopk, jumprelu or gated SAE, from before or after SAELens version 6."""
    config = source.config
    if not config:
        raise source.refuse("its cfg.json, which SAELens saves in the same folder, is missing.")
    architecture = config.get("architecture", "standard")
    function = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    details = config.get("activation_fn_kwargs")
    settings: dict[str, Any] = {**config, **(details if isinstance(details, Mapping) else {})}
    if architecture == "standard" and function == "topk":
        architecture = "topk"
    if not isinstance(architecture, str) or architecture not in _KINDS:
        raise source.refuse(f"its architecture is {architecture!r}, but must be one of {', '.join(_KINDS)}.")
    normalise = config.get("normalize_activations") or "none"
    normalise = "expected_average_only_in" if normalise is True else normalise
    if not isinstance(normalise, str) or normalise not in _NORMALISATIONS:
        raise source.refuse(
            f"its normalisation is {normalise!r}, but must be one of {', '.join(_NORMALISATIONS)}."
        )
    own = {
        "standard": {"b_enc": "n"},
        "topk": {"b_enc": "n"},
        "batchtopk": {"b_enc": "n", "topk_threshold": ""},
        "jumprelu": {"b_enc": "n", "threshold": "n"},
        "gated": {"b_gate": "n", "b_mag": "n", "r_mag": "n"},
    }[architecture]
    t = require_tensors(
        source, content, {"W_enc": "dn", "W_dec": "nd", "b_dec": "d", **own}, {"scaling_factor": "n"}
    )
    W_enc, W_dec, b_dec = t["W_enc"].T.contiguous(), t["W_dec"], t["b_dec"]
    n = len(W_enc)
    require_same_size(source, W_enc, d_in=config.get("d_in"), n=config.get("d_sae"))
    b_enc = t["b_mag"] if architecture == "gated" else t["b_enc"]
    threshold = t.get("threshold")
    if architecture == "batchtopk":
        threshold = t["topk_threshold"].expand(n).contiguous()
    if config.get("rescale_acts_by_decoder_norm") and architecture in ("topk", "batchtopk"):
        W_enc, b_enc, W_dec = unit_decoder(W_enc, b_enc, W_dec)
    if (factor := t.get("scaling_factor")) is not None and not torch.allclose(
        factor, torch.ones_like(factor)
    ):
        if not config.get("finetuning_scaling_factor"):
            raise source.refuse("it has a scaling_factor, but its config does not mention a scaling factor.")
        W_dec = W_dec * factor[:, None]
    centred = config.get("apply_b_dec_to_input", True)
    metadata = config.get("metadata")
    named = {**config, **(metadata if isinstance(metadata, Mapping) else {})}
    hook_point = named.get("hook_name", named.get("hook_point"))
    k = require_int(source, settings, "k") if architecture == "topk" else n
    magnitude = t["r_mag"].exp() if architecture == "gated" else None
    weights = (W_enc, b_enc, W_dec, b_dec if centred else torch.zeros_like(b_dec), b_dec)
    return Dictionary(
        *weights,
        Activation(_KINDS[architecture], k, threshold, t.get("b_gate"), magnitude),
        inputs=InputTransform(_NORMALISATIONS[normalise]),
        provenance=Provenance(hook_point if isinstance(hook_point, str) else source.hook_point),
    )


LAYOUT = FileLayout(lambda _: "saelens", _matches, _read)
