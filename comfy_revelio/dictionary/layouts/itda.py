"""Read the ITDA checkpoints of fae (arXiv 2505.24360). In ITDA each feature is an activation."""

from __future__ import annotations

import torch

from ..activations import Activation
from ..dictionary import Dictionary
from ..input_transform import InputTransform
from ..metadata import Provenance
from ..sources import Source
from .checks import Content, FileLayout, require_int, require_same_size, require_tensors


def _matches(content: Content, config: Content) -> bool:
    return {"xs", "ys"} <= set(content)


def _read(source: Source, content: Content) -> Dictionary:
    """Read the atoms xs for encoding (by gradient pursuit) and ys for decoding, without the padding rows.

    Rows from dictionary_size on are padding. fae's script trains on x / std_x and saves std_x with the atoms,
    but fae's class does not use std_x. Our dictionary divides x by std_x and reconstructs in the units of x.
    """
    config = source.config
    t = require_tensors(
        source,
        content,
        {"xs": "nd", "ys": "nd"},
        {"mean_x": "d", "mean_y": "d", "std_x": "d", "std_y": "d", "weight": "dd"},
        # the padding and the unused tensors are uninitialised and may contain any numbers
        finite=("mean_x", "mean_y", "std_x", "std_y"),
    )
    if config.get("skip_connection"):
        raise source.refuse("it has a skip connection, whose output is not a sum of features.")
    padded, d = t["xs"].shape
    n = require_int(source, config, "dictionary_size")
    if n > padded:
        raise source.refuse(f"its config gives {n} atoms, but the file contains {padded}.")
    xs, ys = t["xs"][:n].contiguous(), t["ys"][:n].contiguous()
    for name, table in (("xs", xs), ("ys", ys)):
        if not bool(table.isfinite().all()):
            raise source.refuse(f"{name} contains numbers that are not finite.")
    require_same_size(source, xs, d_in=config.get("d_model"), n=None)
    nothing, ones = torch.zeros(d), torch.ones(d)
    centred = bool(config.get("subtract_mean", False))
    std_x, std_y = t.get("std_x", ones), t.get("std_y", ones)
    if not bool((std_x > 0).all() and (std_y > 0).all()):
        raise source.refuse("all numbers in std_x and std_y must be above 0.")
    scaled = not torch.equal(std_x, ones)
    if torch.equal(std_y, ones) and torch.equal(xs, ys):
        std_y = std_x  # the script sets only std_x, because the training target is the input
    b_in = t.get("mean_x", nothing) if centred else nothing
    b_out = t.get("mean_y", nothing) * std_y if centred else nothing
    weights = (xs, torch.zeros(n), ys * std_y, b_in, b_out)
    return Dictionary(
        *weights,
        Activation("pursuit", min(require_int(source, config, "target_l0"), n)),
        inputs=InputTransform(whitening=torch.diag(1 / std_x), whitening_bias=nothing) if scaled else None,
        provenance=Provenance(source.hook_point),
    )


LAYOUT = FileLayout(lambda _: "itda", _matches, _read)
