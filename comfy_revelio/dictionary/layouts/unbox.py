"""Read the checkpoints of sdxl-unbox (arXiv 2410.22366) and Concept Steerers (arXiv 2501.19066)."""

from __future__ import annotations

from collections.abc import Mapping

from ..activations import Activation
from ..dictionary import Dictionary
from ..feature_stats import FeatureStats
from ..metadata import Extras, Provenance
from ..sources import Source, read_beside
from .checks import Content, FileLayout, reject_extra_keys, require_int, require_same_size, require_tensors


def _matches(content: Content, config: Content) -> bool:
    inner = content.get("state_dict")
    return "cfg" not in content and isinstance(inner, Mapping) and {"pre_bias", "latent_bias"} <= set(inner)


def _read(source: Source, content: Content) -> Dictionary:
    """Read x^ = relu(topk((x - pre_bias) W_e^T + latent_bias)) W_d^T + pre_bias.

    In sdxl-unbox, x is the block's output - input. Concept Steerers also subtracted pre_bias from the
    training target, so rebuilding x takes 2 pre_bias. The keys are the same; only its config has `auxk_coef`.
    """
    reject_extra_keys(source, content, "state_dict")
    t = require_tensors(
        source,
        content["state_dict"],
        {"pre_bias": "d", "latent_bias": "n", "encoder.weight": "nd", "decoder.weight": "dn"},
        {"stats_last_nonzero": "int n"},
    )
    k = require_int(source, source.config, "k")
    require_same_size(
        source, t["encoder.weight"], d_in=source.config.get("d_model"), n=source.config.get("n_dirs_local")
    )
    steerers = "auxk_coef" in source.config
    stats = None
    if (mean := read_beside(source, "mean.pt")) is not None:
        if tuple(mean.shape) != (len(t["latent_bias"]),) or not bool(mean.isfinite().all()):
            raise source.refuse("the mean.pt beside it must contain one finite number for each feature.")
        stats = FeatureStats(mean.float())
    text = source.hook_point.startswith("text_encoder")
    W_dec, b_in = t["decoder.weight"].T.contiguous(), t["pre_bias"]
    weights = (t["encoder.weight"], t["latent_bias"], W_dec, b_in, b_in * (2 if steerers else 1))
    return Dictionary(
        *weights,
        Activation("topk_relu", k),
        provenance=Provenance(source.hook_point, "output" if steerers or text else "diff"),
        extras=Extras(stats=stats),
    )


LAYOUT = FileLayout(
    lambda config: "concept-steerers" if "auxk_coef" in config else "sdxl-unbox", _matches, _read
)
