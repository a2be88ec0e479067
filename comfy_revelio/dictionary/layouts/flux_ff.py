"""SAEs of a feed-forward block of FLUX.1-dev, as `sae_best.pt`."""

from __future__ import annotations

from collections.abc import Mapping

from ..dictionary import Dictionary
from ..sources import Source
from .strict import Content, Layout, agree, take, whole


def _matches(content: Content, config: Content) -> bool:
    return "model_state_dict" in content


def _read(source: Source, content: Content) -> Dictionary:
    """x^ = topk(relu((x - pre_bias) W_e^T + b)) W_d^T + pre_bias, or all of relu without `use_topk`."""
    settings = content.get("config")
    if not isinstance(settings, Mapping):
        raise source.refuse("it has no config beside model_state_dict.")
    if settings.get("normalize_data"):
        raise source.refuse("it was trained on standardised activations, and by what they were is not in it.")
    t = take(
        source,
        content["model_state_dict"],
        {"pre_bias": "d", "encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn"},
    )
    agree(source, t["encoder.weight"], d_in=settings.get("input_dim"), n=settings.get("hidden_dim"))
    use_topk = settings.get("use_topk", True)
    return Dictionary(
        t["encoder.weight"],
        t["encoder.bias"],
        t["decoder.weight"].T.contiguous(),
        t["pre_bias"],
        t["pre_bias"],
        k=whole(source, settings, "topk_k") if use_topk else len(t["encoder.bias"]),
        activation="topk_relu" if use_topk else "relu",
        hook_point=source.hook_point,
    )


LAYOUT = Layout(lambda _: "flux-ff", _matches, _read)
