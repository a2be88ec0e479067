"""Transfer Features: add the features of one generation to another generation, as the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import RevelioError
from ..render.table import table
from ..steering import TokenContext, Transfer
from ..trace import Trace
from .comfy_types import Mask, Model
from .sae_files import SAEHandle
from .taps.model import resolve, tap
from .taps.runs import ModelCall, Run

LISTED = 8
"""The report lists at most this many added and this many removed features."""


@dataclass(frozen=True, eq=False)
class Side:
    """The source or the target generation of a transfer."""

    trace: Trace | None
    mask: Mask | None
    """The part of the image from which (source) or to which (target) features are transferred."""
    item: int = 0
    """Number of the image in the generation's batch, from 0."""


def transfer_features(
    model: Model, sae: SAEHandle, source: Side, target: Side, **options: Any
) -> tuple[Model, str]:
    """Return a clone of `model` that adds the source's features, and a table of features added and removed.

    options: as for `Transfer`. With strength 0 or an empty range, the clone has no tap.
    """
    dictionary = sae.dictionary
    if source.trace is None or source.mask is None:
        raise RevelioError("A transfer needs a trace of the source image and a mask of the part to transfer.")
    known = source.trace.hook_points
    point = resolve(model, dictionary.hook_point or next(iter(known), ""), dictionary.d_model, sae.title)
    if known and point.name not in known:
        if len(known) > 1:
            raise RevelioError(
                f"The source was recorded at {', '.join(known)}, but this SAE reads {point.name}; record "
                "the source with this SAE."
            )
        point = resolve(model, known[0], dictionary.d_model, sae.title)
    transfer = Transfer(
        dictionary,
        point.name,
        source.trace,
        source.mask,
        target.trace,
        target.mask,
        source_item=source.item,
        target_item=target.item,
        **options,
    )
    report = _describe(transfer)
    if not transfer.active:
        return model.clone(), report

    def change(tokens: Tensor, call: ModelCall, _run: Run) -> Tensor | None:
        if len(call.grid) != 2:
            raise RevelioError(
                "This model makes videos, but features can only be transferred between images."
            )
        height, width = call.grid
        context = TokenContext(call.role, (height, width), call.items, call.percent, call.timestep)
        return transfer.delta(tokens.to(dictionary.W_enc.device), context)

    return tap(model, point, change, captured=dictionary.captured, weights=sae.patcher), report


def _describe(transfer: Transfer) -> str:
    """Return a Markdown table of the strongest features added and removed."""
    label = transfer.dictionary.label_of
    rows = [
        (change, f"#{feature}", label(feature) or "-")
        for change, features in (("added", transfer.added), ("removed", transfer.removed))
        for feature in features[:LISTED]
    ]
    intro = (
        f"{len(transfer.added)} features added and {len(transfer.removed)} removed at "
        f"{transfer.hook_point}; the strongest of each:"
    )
    return f"{intro}\n\n{table(('change', 'feature', 'label'), rows, numbers_from=3)}"
