"""Find where in an image a concept is, and which features of a dictionary are similar.

    heat = sqrt(sum(z r max(a, 0)) / A),   A = the largest sum(max(a, 0)^2) over the tokens

At each token, z are the codes of the concept's features, and a and r are the concept's amounts and shares
(`Concept`) for the frame's kind of image. The heat is 1 where the concept is as strong as it usually is at
its strongest token. The heat is 0 where the concept never appears and where none of its features fire.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..dictionary import Concept, Dictionary
from ..dictionary.concept import image_kinds
from ..hookpoints.resize_maps import maps_on_grid
from ..trace import Frame

_TINY = 1e-12
_CHUNK_ROWS = 8192


@torch.no_grad()
def concept_presence(frames: Sequence[Frame], dictionary: Dictionary, item: int) -> Tensor:
    """Return the heat of each concept at each step: float32 [concepts, steps, height, width], at least 0.

    frames: frames with one hook point, role and grid size, recorded with the dictionary.
    """
    grid = frames[0].grid
    codes = [frame.codes[item] for frame in frames]
    # The image's kind is read from decoded codes, because decoding restores the scale of the activations.
    pooled = torch.stack(
        [
            dictionary.decode(z, timestep=frame.timestep).mean(0)
            for z, frame in zip(codes, frames, strict=True)
        ]
    )
    heat = pooled.new_zeros(len(dictionary.concepts), len(frames), *grid)
    for number, concept in enumerate(dictionary.concepts.values()):
        features = torch.tensor(concept.features)
        pulls = _pulls(concept, grid)
        for step, kind in enumerate(image_kinds(pooled, concept.reader.cpu()).tolist()):
            projected = (codes[step].of_many(features) * pulls[kind]).sum(-1)
            # Without the root, the heat would decrease like the squares of the amounts.
            heat[number, step] = projected.clamp(min=0).sqrt().reshape(grid)
    return heat


@torch.no_grad()
def nearest_features(dictionary: Dictionary, feature: int, count: int = 8) -> list[tuple[int, float]]:
    """Return the features whose directions are most similar to that of `feature`: (number, cosine) pairs.

    The most similar is first. Features with a cosine of at most 0 are left out, such as dead features.

    >>> from comfy_revelio.dictionary import Activation
    >>> W_dec, zero = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]), torch.zeros(3)
    >>> sae = Dictionary(W_dec, zero, W_dec, torch.zeros(2), torch.zeros(2), Activation("relu", k=2))
    >>> [(f, round(cosine, 2)) for f, cosine in nearest_features(sae, 2)]
    [(1, 0.8), (0, 0.6)]
    """
    direction = functional.normalize(dictionary.directions([feature])[0], dim=0)
    cosines = torch.cat(
        [
            functional.normalize(rows.float(), dim=1) @ direction.to(rows.device)
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
    """Return the factors r max(a, 0) / A that multiply the codes of M features: a tensor [T, M] per kind."""
    pulls = []
    for amount, share in zip(concept.amount, concept.share, strict=True):
        raised = maps_on_grid(amount.cpu(), grid).clamp(min=0)
        pulls.append(
            maps_on_grid(share.cpu(), grid) * raised / raised.square().sum(-1).max().clamp(min=_TINY)
        )
    return pulls
