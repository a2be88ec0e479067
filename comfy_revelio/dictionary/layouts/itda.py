"""ITDA checkpoints of fae (arXiv 2505.24360): features are activations themselves."""

from __future__ import annotations

import torch

from ..dictionary import Dictionary
from ..sources import Source
from .strict import Content, Layout, agree, take, whole


def _matches(content: Content, config: Content) -> bool:
    return {"xs", "ys"} <= set(content)


def _read(source: Source, content: Content) -> Dictionary:
    """Atoms xs, weights by gradient pursuit, x^ from ys; the tables are padded beyond dictionary_size."""
    config = source.config
    t = take(
        source,
        content,
        {"xs": "nd", "ys": "nd"},
        {"mean_x": "d", "mean_y": "d", "std_x": "d", "std_y": "d", "weight": "dd"},
        finite=("mean_x", "mean_y"),  # the padding and unused tensors were never written
    )
    if config.get("skip_connection"):
        raise source.refuse("it has a skip connection, and what that adds is no sum of features.")
    padded, d = t["xs"].shape
    n = whole(source, config, "dictionary_size")
    if n > padded:
        raise source.refuse(f"it should have {n} atoms, but holds {padded}.")
    xs, ys = t["xs"][:n].contiguous(), t["ys"][:n].contiguous()
    for name, table in (("xs", xs), ("ys", ys)):
        if not bool(table.isfinite().all()):
            raise source.refuse(f"{name} holds numbers that are not finite.")
    agree(source, xs, d_in=config.get("d_model"), n=None)
    nothing = torch.zeros(d)
    centred = bool(config.get("subtract_mean", False))
    return Dictionary(
        xs,
        torch.zeros(n),
        ys,
        t.get("mean_x", nothing) if centred else nothing,
        t.get("mean_y", nothing) if centred else nothing,
        k=min(whole(source, config, "target_l0"), n),
        activation="pursuit",
        hook_point=source.hook_point,
    )


LAYOUT = Layout(lambda _: "itda", _matches, _read)
