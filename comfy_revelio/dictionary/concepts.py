"""How a dictionary's features change, and where, when a concept comes into a picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import RevelioError


@dataclass(frozen=True, eq=False)
class Concept:
    """The features that carry a concept, measured on pairs of pictures with it and without it.

    features: m feature numbers, the one that carries most first.
    amount: float32 [m, height, width], mean code with the concept minus mean code without it, of either sign:
        what the concept puts in and takes away in each part of the picture.
    share: float32 [m, height, width] in 0..1, how much of the mean code with the concept is gone without it:
        1 where a feature fires for the concept alone, 0 where it fires as well without it.

    Raises RevelioError when the shapes do not fit each other.
    """

    features: tuple[int, ...]
    amount: Tensor
    share: Tensor

    def __post_init__(self) -> None:
        shape = self.amount.shape
        if len(shape) != 3 or 0 in shape or shape != self.share.shape or shape[0] != len(self.features):
            raise RevelioError(
                f"A concept of {len(self.features)} features needs maps [features, height, width] of one "
                f"size, not {list(shape)} and {list(self.share.shape)}."
            )
