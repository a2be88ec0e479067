"""How a dictionary's features change, and where, when a concept is added to an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RevelioError


@dataclass(frozen=True, eq=False)
class Concept:
    """The features that carry a concept, measured on images with it and without it.

    Images are of several kinds (a photo, a drawing; an early step, a late one), and in each kind the concept
    looks different and is somewhere else.
    """

    features: tuple[int, ...]
    """m feature numbers, the one that carries most first."""
    amount: Tensor
    """float32 [kinds, m, height, width]: mean code with the concept minus mean code without it, of either
    sign; what the concept adds and removes in each part of an image of that kind."""
    share: Tensor
    """float32 [kinds, m, height, width] in 0..1: how much of the mean code with the concept is gone without
    it; 1 where a feature fires for the concept alone, 0 where it fires as strongly without it."""
    reader: Tensor
    """float32 [kinds, d_model + 1]: weights and bias that score each kind from the mean activation of an
    image; the kind with the highest score is the image's."""

    def __post_init__(self) -> None:
        shape, reader = self.amount.shape, self.reader.shape
        fits = len(shape) == 4 and 0 not in shape and shape == self.share.shape
        if not fits or shape[1] != len(self.features) or len(reader) != 2 or reader[0] != shape[0]:
            raise RevelioError(
                f"A concept of {len(self.features)} features needs maps [kinds, features, height, width] of "
                f"one size and a reader [kinds, width + 1], not {list(shape)}, {list(self.share.shape)} and "
                f"{list(reader)}."
            )

    @property
    def kinds(self) -> int:
        """Number of kinds of image."""
        return self.amount.shape[0]


def single_kind_reader(d_model: int) -> Tensor:
    """The reader for images that are all of one kind."""
    return torch.zeros(1, d_model + 1)


def image_kinds(pooled: Tensor, reader: Tensor) -> Tensor:
    """The kind with the highest score: int64 [...] for mean activations pooled [..., d_model].

    >>> reader = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -0.5]])
    >>> image_kinds(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), reader).tolist()
    [0, 1]
    """
    return (pooled.float() @ reader[:, :-1].T + reader[:, -1]).argmax(dim=-1)
