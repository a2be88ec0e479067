"""Transfer between generations, inside the model's own calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..errors import RevelioError
from ..render.table import table
from ..steering import TokenContext, Transfer
from ..trace import Trace
from .sae_files import SAEHandle
from .taps.model import resolve, tap
from .taps.runs import ModelCall, Run

LISTED = 8


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two generations: its trace, the mask of the part that is meant, and which picture of it."""

    trace: Trace | None
    mask: Tensor | None
    item: int = 0


def transfer_features(
    model: ModelPatcher, sae: SAEHandle, source: Side, target: Side, **options: Any
) -> tuple[ModelPatcher, str]:
    """(a clone of `model` that gets what the source has, which features go in and out as a table).

    options: as for `Transfer`. With strength 0 or an empty range the clone carries no tap at all.
    """
    dictionary = sae.dictionary
    if source.trace is None or source.mask is None:
        raise RevelioError("A transfer needs a trace of its source and a mask of the part that is meant.")
    known = source.trace.hook_points
    point = resolve(model, dictionary.hook_point or next(iter(known), ""), dictionary.d_model, sae.title)
    if known and point.name not in known:
        if len(known) > 1:
            raise RevelioError(
                f"The source was recorded at {', '.join(known)}, but this SAE is of {point.name}; record the "
                "source with this SAE."
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
    words = _describe(transfer)
    if not transfer.active:
        return model.clone(), words

    def change(tokens: Tensor, call: ModelCall, _run: Run) -> Tensor | None:
        if len(call.grid) != 2:
            raise RevelioError("This model makes videos; features are transferred between pictures only.")
        height, width = call.grid
        context = TokenContext(call.role, (height, width), call.items, call.percent, call.timestep)
        return transfer.delta(tokens.to(dictionary.W_enc.device), context)

    return tap(model, point, change, captured=dictionary.captured, weights=sae.patcher), words


def _describe(transfer: Transfer) -> str:
    """The strongest features of both directions, as Markdown."""
    label = transfer.dictionary.label_of
    rows = [
        (way, f"#{feature}", label(feature) or "-")
        for way, features in (("in", transfer.added), ("out", transfer.removed))
        for feature in features[:LISTED]
    ]
    intro = (
        f"{len(transfer.added)} features go in and {len(transfer.removed)} out at {transfer.hook_point}; "
        "the first of each:"
    )
    return f"{intro}\n\n{table(('way', 'feature', 'label'), rows, numbers_from=3)}"
