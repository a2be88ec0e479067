"""Read checkpoints of openai/sparse_autoencoder (arXiv 2406.04093)."""

from __future__ import annotations

from collections.abc import Mapping

from ..activations import Activation, ActivationKind
from ..dictionary import Dictionary
from ..input_transform import InputTransform
from ..metadata import Provenance
from ..sources import Source
from .checks import Content, FileLayout, require_int, require_tensors


def _matches(content: Content, config: Content) -> bool:
    return {"pre_bias", "latent_bias", "encoder.weight"} <= set(content)


def _read(source: Source, content: Content) -> Dictionary:
    """Read x^ = act((x - pre_bias) W_e^T + latent_bias) W_d^T + pre_bias; TopK: x is layer-normalised."""
    content = dict(content)
    activation = content.pop("activation", "ReLU")
    settings = content.pop("activation_state_dict", {})
    for name in ("k", "postact_fn"):  # OpenAI's class TopK saves these entries twice
        if f"activation.{name}" in content:
            again = content.pop(f"activation.{name}")
            if not isinstance(settings, Mapping) or settings.get(name) != again:
                raise source.refuse(f"it contains two different values of {name} for its activation.")
    tied = "decoder.linear.weight" in content
    t = require_tensors(
        source,
        content,
        {"pre_bias": "d", "latent_bias": "n", "encoder.weight": "nd"}
        | ({"decoder.linear.weight": "nd"} if tied else {"decoder.weight": "dn"}),
        {"stats_last_nonzero": "int n", "latents_activation_frequency": "n", "latents_mean_square": "n"},
    )
    n = len(t["latent_bias"])
    if activation == "TopK":
        after = settings.get("postact_fn", "ReLU") if isinstance(settings, Mapping) else None
        if after not in ("ReLU", "Identity"):
            raise source.refuse(f"its function after top-k is {after!r}, but must be ReLU or Identity.")
        kind: ActivationKind = "topk_relu" if after == "ReLU" else "topk_signed"
        k = require_int(source, settings, "k")
    elif activation == "ReLU":
        kind, k = "relu", n
    else:
        raise source.refuse(f"its activation is {activation!r}, but must be TopK or ReLU.")
    W_dec = t["decoder.linear.weight"] if tied else t["decoder.weight"].T.contiguous()
    weights = (t["encoder.weight"], t["latent_bias"], W_dec, t["pre_bias"], t["pre_bias"])
    return Dictionary(
        *weights,
        Activation(kind, k),
        inputs=InputTransform("layernorm" if activation == "TopK" else "none"),
        provenance=Provenance(source.hook_point),
    )


LAYOUT = FileLayout(lambda _: "openai", _matches, _read)
