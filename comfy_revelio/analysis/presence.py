"""Where in a picture a whole concept is, and which features of a dictionary are alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..dictionary import Concept, Dictionary
from ..dictionary.concept import image_kinds
from ..hookpoints.grids import maps_on_grid
from ..trace import Frame

_TINY = 1e-12
_CHUNK_ROWS = 8192


@torch.no_grad()
def concept_presence(frames: Sequence[Frame], dictionary: Dictionary, item: int) -> Tensor:
    """How much of each concept is where at each step: float32 [concepts, steps, height, width], at least 0.

    frames: of one hook point and role, recorded with the dictionary, all of one size. With z the codes, and
    a and s the amounts (negative ones as 0) and shares of a concept's features on the frames' grid, in the
    kind of picture that the frame is of, the heat of a token is the root of sum(z * s * a), as a share of
    the largest sum(a * a) of any token: 1 where the concept is as strong as it usually is in the place where
    it is strongest, 0 where it never lies and where nothing fires for it. The root makes it fall off as the
    amounts do, and not as their squares. The kind is read from what the codes decode to, which
    is in the activations' own size, as the reader needs it, where the frames keep the scale and shift of a
    dictionary that normalises.
    """
    grid = frames[0].grid
    taken = [frame.codes[item] for frame in frames]
    pooled = torch.stack(
        [
            dictionary.decode(codes, timestep=frame.timestep).mean(0)
            for codes, frame in zip(taken, frames, strict=True)
        ]
    )
    heat = pooled.new_zeros(len(dictionary.concepts), len(frames), *grid)
    for number, concept in enumerate(dictionary.concepts.values()):
        features = torch.tensor(concept.features)
        pulls = _pulls(concept, grid)
        for step, kind in enumerate(image_kinds(pooled, concept.reader.cpu()).tolist()):
            here = (taken[step].of_many(features) * pulls[kind]).sum(-1)
            heat[number, step] = here.clamp(min=0).sqrt().reshape(grid)
    return heat


@torch.no_grad()
def nearest_features(dictionary: Dictionary, feature: int, count: int = 8) -> list[tuple[int, float]]:
    """The features whose directions are most like this one's, and the cosines, most alike first.

    Directions without length (dead features) are left out. RevelioError when there is no such feature.
    """
    wanted = functional.normalize(dictionary.directions([feature])[0], dim=0)
    cosines = torch.cat(
        [
            functional.normalize(rows.float(), dim=1) @ wanted.to(rows.device)
            for rows in dictionary.W_dec.split(_CHUNK_ROWS)
        ]
    )
    cosines[feature] = -torch.inf
    best = cosines.topk(min(count, len(cosines) - 1))
    return [
        (number, cosine)
        for number, cosine in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        if cosine > 0
    ]


def _pulls(concept: Concept, grid: tuple[int, ...]) -> list[Tensor]:
    """For each kind of picture, what the codes of the concept's features count at each token: [T, m]."""
    pulls = []
    for amount, share in zip(concept.amount, concept.share, strict=True):
        raised = maps_on_grid(amount.cpu(), grid).clamp(min=0)
        pulls.append(
            maps_on_grid(share.cpu(), grid) * raised / raised.square().sum(-1).max().clamp(min=_TINY)
        )
    return pulls
