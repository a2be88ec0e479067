"""Describe how a dictionary's features change when a concept is added to an image, and where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RevelioError


@dataclass(frozen=True, eq=False)
class Concept:
    """The features that carry a concept, measured on images with and without the concept.

    Images are divided into kinds (such as photos and drawings, or early and late steps), because how a
    concept looks and where it appears in the image depend on the kind.
    """

    features: tuple[int, ...]
    """m feature numbers; the feature that carries most of the concept comes first."""
    amount: Tensor
    """float32 [kinds, m, height, width]: mean code with the concept minus mean code without it: what
    the concept adds to each part of an image (> 0) or removes from there (< 0)."""
    share: Tensor
    """float32 [kinds, m, height, width] in 0..1: the share of a feature's mean code that disappears without
    the concept: 1 where the feature fires only for the concept, 0 where it fires as strongly without."""
    reader: Tensor
    """float32 [kinds, d_model + 1]: weights and bias of a linear classifier, which scores each kind from an
    image's mean activation. The image belongs to the kind with the highest score."""

    def __post_init__(self) -> None:
        shape, reader = self.amount.shape, self.reader.shape
        fits = len(shape) == 4 and 0 not in shape and shape == self.share.shape
        if not fits or shape[1] != len(self.features) or len(reader) != 2 or reader[0] != shape[0]:
            raise RevelioError(
                f"A concept of {len(self.features)} features needs maps [kinds, features, height, width] of "
                f"one size and a reader [kinds, width + 1]; got {list(shape)}, {list(self.share.shape)} and "
                f"{list(reader)}."
            )

    @property
    def kinds(self) -> int:
        """Number of kinds into which images are divided."""
        return self.amount.shape[0]


def single_kind_reader(d_model: int) -> Tensor:
    """Return a reader for images that all belong to one kind."""
    return torch.zeros(1, d_model + 1)


def image_kinds(pooled: Tensor, reader: Tensor) -> Tensor:
    """Return each image's kind (int64 [...]) from its mean activation (`pooled`: [..., d_model]).

    >>> reader = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -0.5]])
    >>> image_kinds(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), reader).tolist()
    [0, 1]
    """
    return (pooled.float() @ reader[:, :-1].T + reader[:, -1]).argmax(dim=-1)
