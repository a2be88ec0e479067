"""Read the checkpoints of Revelio (arXiv 2411.16725)."""

from __future__ import annotations

from collections.abc import Mapping

from ..activations import Activation
from ..dictionary import Dictionary
from ..metadata import Provenance
from ..sources import Source, Stub
from .checks import Content, FileLayout, reject_extra_keys, require_int, require_same_size, require_tensors


def _matches(content: Content, config: Content) -> bool:
    return "cfg" in content and "state_dict" in content


def _read(source: Source, content: Content) -> Dictionary:
    """Read x^ = topk((x - b_dec) W_enc + b_enc) W_dec + b_dec. topk is signed; x is a spatial mean."""
    reject_extra_keys(source, content, "cfg", "state_dict")
    cfg = content["cfg"]
    settings: Content = cfg.state if isinstance(cfg, Stub) else cfg if isinstance(cfg, Mapping) else {}
    t = require_tensors(
        source, content["state_dict"], {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d"}
    )
    W_enc = t["W_enc"].T.contiguous()
    require_same_size(source, W_enc, d_in=settings.get("d_in"), n=settings.get("d_sae"))
    block = settings.get("block_name") if "up_" in str(settings.get("block_name")) else None
    named = block or settings.get("module_name") or ""
    weights = (W_enc, t["b_enc"], t["W_dec"], t["b_dec"], t["b_dec"])
    return Dictionary(
        *weights,
        Activation("topk_signed", require_int(source, settings, "k")),
        provenance=Provenance(named if isinstance(named, str) else "", pooling="spatial_mean"),
    )


LAYOUT = FileLayout(lambda _: "revelio-paper", _matches, _read)
