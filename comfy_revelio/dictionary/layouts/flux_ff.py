"""Read SAEs for a feed-forward block of FLUX.1-dev (`sae_best.pt`, `sae_final.pt` or `sae_epoch_N.pt`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..activations import Activation
from ..dictionary import Dictionary
from ..metadata import Provenance
from ..sources import Source
from .checks import Content, FileLayout, require_int, require_same_size, require_tensors


def _matches(content: Content, config: Content) -> bool:
    return "model_state_dict" in content


def _read(source: Source, content: Content) -> Dictionary:
    """Read x^ = topk(relu((x - pre_bias) W_e^T + b)) W_d^T + pre_bias; no topk unless `use_topk`."""
    settings = content.get("config")
    if not isinstance(settings, Mapping):
        raise source.refuse("it has no config beside model_state_dict.")
    if settings.get("normalize_data"):
        raise source.refuse(
            "it was trained on standardised activations, but does not contain their mean and deviation."
        )
    t = require_tensors(
        source,
        content["model_state_dict"],
        {"pre_bias": "d", "encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn"},
    )
    require_same_size(
        source, t["encoder.weight"], d_in=settings.get("input_dim"), n=settings.get("hidden_dim")
    )
    n = len(t["encoder.bias"])
    activation = Activation("relu", n)
    if settings.get("use_topk", False):
        activation = Activation("topk_relu", min(require_int(source, settings, "topk_k"), n))
    W_dec, bias = t["decoder.weight"].T.contiguous(), t["pre_bias"]
    weights = (t["encoder.weight"], t["encoder.bias"], W_dec, bias, bias)
    hook_point = source.hook_point or _hook_point(settings.get("layer"))
    return Dictionary(*weights, activation, provenance=Provenance(hook_point))


def _hook_point(layer: object) -> str:
    """Return the hook point of "layer5" in a config: the image stream's feed-forward in double block 5."""
    match = re.fullmatch(r"layer(\d{1,3})", layer) if isinstance(layer, str) else None
    return f"transformer_blocks.{match[1]}.ff" if match else ""


LAYOUT = FileLayout(lambda _: "flux-ff", _matches, _read)
