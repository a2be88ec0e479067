"""Sparse codes: the few active features of every token, never a dense table unless asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import RevelioError


@dataclass(frozen=True, eq=False)
class Codes:
    """Sparse codes of any leading shape.

    indices: int64 [..., k], feature numbers, each at most once per position.
    values: float32 [..., k], strongest first; 0 (with index 0) where fewer than k features fire.
    n_features: size of the dictionary that the indices refer to.
    scale, shift: float32 of the leading shape, where the dictionary normalises each activation first: what
        decoding multiplies the reconstruction by and adds to it. None otherwise.
    """

    indices: Tensor
    values: Tensor
    n_features: int
    scale: Tensor | None = None
    shift: Tensor | None = None

    def __post_init__(self) -> None:
        if self.indices.shape != self.values.shape or self.indices.ndim < 1:
            raise RevelioError(
                f"Codes need indices and values of one shape, not {tuple(self.indices.shape)} "
                f"and {tuple(self.values.shape)}."
            )

    @property
    def shape(self) -> torch.Size:
        """The leading shape, without k."""
        return self.indices.shape[:-1]

    @property
    def k(self) -> int:
        return self.indices.shape[-1]

    @property
    def nbytes(self) -> int:
        """Memory of all tensors, in bytes."""
        tensors = (self.indices, self.values, self.scale, self.shift)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def to(self, device: str | torch.device) -> Codes:
        scale, shift = (None if t is None else t.to(device) for t in (self.scale, self.shift))
        return Codes(self.indices.to(device), self.values.to(device), self.n_features, scale, shift)

    def __getitem__(self, index: Any) -> Codes:
        """Index the leading dimensions; k stays whole."""
        picks = index if isinstance(index, tuple) else (index,)
        if Ellipsis not in picks:
            picks = (*picks, Ellipsis)
        scale, shift = (None if t is None else t[picks] for t in (self.scale, self.shift))
        picks = (*picks, slice(None))
        return Codes(self.indices[picks], self.values[picks], self.n_features, scale, shift)

    def of(self, feature: int) -> Tensor:
        """The value of one feature at every position, 0 where it is absent: float32 [...]."""
        check_feature(feature, self.n_features)
        return torch.where(self.indices == feature, self.values, 0.0).sum(-1)

    def of_many(self, features: Tensor) -> Tensor:
        """The values of the features [m] at every position: float32 [..., m]."""
        features = features.to(self.indices.device)
        out = self.values.new_zeros(*self.shape, features.numel())
        for slot in range(self.k):  # k small passes instead of one table of [..., k, m]
            hit = self.indices[..., slot, None] == features
            out += torch.where(hit, self.values[..., slot, None], 0.0)
        return out

    def dense(self) -> Tensor:
        """The full table, float32 [..., n_features]; for small inputs only."""
        out = self.values.new_zeros(*self.shape, self.n_features)
        return out.scatter_add_(-1, self.indices, self.values)

    def peaks(self, keep: Tensor | None = None) -> Tensor:
        """Each feature's maximum over the positions of an item: [items, ..., k] -> [items, n_features].

        keep: bool, the leading shape; positions that are False do not count. Features that never
        fire, and features that are only ever negative, get 0.
        """
        values = self.values if keep is None else torch.where(keep[..., None], self.values, 0.0)
        out = values.new_zeros(values.shape[0], self.n_features)
        return out.scatter_reduce_(1, self.indices.flatten(1), values.flatten(1), "amax")


def check_feature(feature: int, n_features: int) -> None:
    """Raise RevelioError unless there is such a feature in a dictionary of this size."""
    if not 0 <= feature < n_features:
        raise RevelioError(
            f"Feature {feature} does not exist: this dictionary has the features 0 to {n_features - 1}; "
            "choose one of these."
        )
