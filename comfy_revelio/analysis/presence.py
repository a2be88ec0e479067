"""Where in a picture a whole concept is, and which features of a dictionary are alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..dictionary import Concept, Dictionary
from ..trace import Frame

_TINY = 1e-12
_CHUNK_ROWS = 8192


def concept_presence(frames: Sequence[Frame], concept: Concept, item: int) -> Tensor:
    """How much of a concept is at each place and step: float32 [steps, height, width], at least 0.

    frames: of one hook point and role, all of one size. With z the codes, a the amounts (negative ones as
    0) and s the shares of the concept's features on the frames' grid, the heat of a token is sum(z * s * a),
    as a share of the largest sum(a * a) of any token: 1 where the concept is as strong as it usually is in
    the place where it is strongest, 0 where it never lies and where nothing fires for it.
    """
    grid = frames[0].grid
    features = torch.tensor(concept.features)
    amount, share = (_on_grid(_mean_map(maps), grid) for maps in (concept.amount, concept.share))
    raised = amount.clamp(min=0)
    usual = raised.square().sum(-1).max().clamp(min=_TINY)
    pull = share * raised / usual
    heat = [(frame.codes[item].of_many(features) * pull).sum(-1).clamp(min=0) for frame in frames]
    return torch.stack(heat).reshape(len(frames), *grid)


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


def _mean_map(maps: Tensor) -> Tensor:
    """Maps [..., m, h, w], for one or for several kinds of pictures, as their mean [m, h, w]."""
    return maps.float().reshape(-1, *maps.shape[-3:]).mean(0)


def _on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps [m, h, w] resized to the grid, by token: float32 [T, m]."""
    resized = functional.interpolate(maps[None], size=grid, mode="bilinear", antialias=True)
    return resized[0].flatten(1).T
