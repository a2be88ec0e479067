"""Concept Vector: make a one-feature dictionary from prompts with a concept and prompts without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.utils
from torch import Tensor

from ... import hookpoints
from ...dictionary.concept_vectors import concept_vectors
from ...errors import RevelioError
from .. import sae_files
from ..comfy_types import Clip, Model
from ..record.prompts import sample_in_parts
from ..sae_files import SAEHandle
from ..taps.model import network_of
from .in_memory import harvest


def vector_of_prompts(
    model: Model,
    clip: Clip,
    hook_point: str,
    label: str,
    with_it: Sequence[str],
    without: Sequence[str],
    *,
    seed: int,
    height: int,
    width: int,
    steps: int,
    cfg: float,
) -> SAEHandle:
    """Return a one-feature dictionary: mean activation of `with_it` minus that of `without` (same seeds)."""
    if not with_it or not without:
        raise RevelioError(
            "A concept vector needs prompts with the concept and prompts without it, one per line."
        )
    plain = hookpoints.resolve(network_of(model.model), hook_point).name
    bar = comfy.utils.ProgressBar(len(with_it) + len(without))
    settings: dict[str, Any] = {"steps": steps, "cfg": cfg, "height": height, "width": width}
    sides: list[Tensor] = []
    for prompts in (with_it, without):

        def generate(tapped: Model, prompts: Sequence[str] = prompts) -> None:
            for latents in sample_in_parts(tapped, clip, prompts, seed, **settings):
                bar.update(len(latents))

        maps = harvest(model, [plain], generate)[plain]
        sides.append(maps.flatten(0, -2).float())
    dictionary = concept_vectors({label.strip() or "concept": (sides[0], sides[1])}, hook_point=plain)
    return sae_files.handle(dictionary, f"{label.strip() or 'concept'} vector")
