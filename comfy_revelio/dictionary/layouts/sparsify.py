"""Read checkpoints of EleutherAI's sparsify, and of SAeUron and SAEmnesia, which are based on sparsify."""

from __future__ import annotations

from ..activations import Activation
from ..dictionary import Dictionary
from ..input_transform import InputTransform
from ..metadata import Provenance
from ..sources import Source
from .checks import Content, FileLayout, require_int, require_same_size, require_tensors


def _matches(content: Content, config: Content) -> bool:
    return {"encoder.weight", "encoder.bias", "W_dec"} <= set(content)


def _read(source: Source, content: Content) -> Dictionary:
    """Read x^ = topk(relu((x - b_dec) W_e^T + b)) W_dec + b_dec.

    SAeUron trains with BatchTopK, but SAeUron's loader switches to top-k per token, as this reader does.
    """
    config = source.config
    if config.get("transcode") or config.get("skip_connection") or "W_skip" in content:
        raise source.refuse("it is a transcoder, not a dictionary of one activation space.")
    t = require_tensors(
        source, content, {"encoder.weight": "nd", "encoder.bias": "n", "W_dec": "nd", "b_dec": "d"}
    )
    d_in, n = config.get("d_in"), config.get("num_latents") or None
    if n is None and type(d_in) is int and type(config.get("expansion_factor")) is int:
        n = d_in * config["expansion_factor"]
    require_same_size(source, t["encoder.weight"], d_in=d_in, n=n)
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise source.refuse(f"its activation is {activation!r}, but must be topk or groupmax.")
    diff = config.get("residual_sae") or config.get("output_or_diff") == "diff"
    weights = (t["encoder.weight"], t["encoder.bias"], t["W_dec"], t["b_dec"], t["b_dec"])
    return Dictionary(
        *weights,
        Activation("topk_relu" if activation == "topk" else "groupmax", require_int(source, config, "k")),
        inputs=InputTransform("layernorm" if config.get("input_unit_norm") else "none"),
        provenance=Provenance(source.hook_point, "diff" if diff else "output"),
    )


LAYOUT = FileLayout(lambda config: "saeuron" if "sample_topk" in config else "sparsify", _matches, _read)
