"""Sparse codes, which store only the few active features of each token.

    z_f = values[k] where indices[k] = f, else 0         the dense code [..., N]
    x^  = sum over k of values[k] W_dec[indices[k]] + b_out       the decoded activation

Shapes: "..." is any leading shape (batch, tokens), K active features, N features, M chosen features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import RevelioError


@dataclass(frozen=True, eq=False)
class Codes:
    """Sparse codes with any leading shape.

    >>> codes = Codes(torch.tensor([[3, 1], [0, 0]]), torch.tensor([[2.0, 0.5], [1.0, 0.0]]), n_features=4)
    >>> codes.dense().tolist()
    [[0.0, 0.5, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]]
    """

    indices: Tensor
    """int64 [..., K]: feature numbers; a feature occurs at most once per position."""
    values: Tensor
    """float32 [..., K]: strongest first; unused slots (fewer than K features fire) have value and index 0."""
    n_features: int
    """Size of the dictionary that the indices refer to."""
    scale: Tensor | None = None
    """float32 [...]: factor by which decoding multiplies; None if the dictionary does not normalise."""
    shift: Tensor | None = None
    """float32 [...]: offset that decoding adds; None unless the dictionary centres its inputs."""

    def __post_init__(self) -> None:
        if self.indices.shape != self.values.shape or self.indices.ndim < 1:
            raise RevelioError(
                f"Codes need indices and values of one shape; got {tuple(self.indices.shape)} "
                f"and {tuple(self.values.shape)}."
            )

    @property
    def shape(self) -> torch.Size:
        """The shape of the codes without the last dimension K.

        >>> Codes(torch.zeros(2, 9, 3, dtype=torch.int64), torch.zeros(2, 9, 3), n_features=4).shape
        torch.Size([2, 9])
        """
        return self.indices.shape[:-1]

    @property
    def k(self) -> int:
        """Number of slots for active features at each position.

        >>> Codes(torch.zeros(2, 9, 3, dtype=torch.int64), torch.zeros(2, 9, 3), n_features=4).k
        3
        """
        return self.indices.shape[-1]

    @property
    def nbytes(self) -> int:
        """Memory that all tensors take, in bytes.

        >>> Codes(torch.tensor([3, 1]), torch.tensor([2.0, 0.5]), n_features=4).nbytes  # 2 int64, 2 float32
        24
        """
        tensors = (self.indices, self.values, self.scale, self.shift)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def to(self, device: str | torch.device) -> Codes:
        """Return the same codes on a device.

        >>> Codes(torch.tensor([3, 1]), torch.tensor([2.0, 0.5]), n_features=4).to("meta").values.device
        device(type='meta')
        """
        scale, shift = (None if t is None else t.to(device) for t in (self.scale, self.shift))
        return Codes(self.indices.to(device), self.values.to(device), self.n_features, scale, shift)

    def reshape(self, shape: Sequence[int]) -> Codes:
        """Return the same codes with another leading shape.

        >>> Codes(torch.zeros(6, 3, dtype=torch.int64), torch.zeros(6, 3), n_features=4).reshape((2, 3)).shape
        torch.Size([2, 3])
        """
        scale, shift = (None if t is None else t.reshape(shape) for t in (self.scale, self.shift))
        indices, values = (t.reshape(*shape, self.k) for t in (self.indices, self.values))
        return Codes(indices, values, self.n_features, scale, shift)

    def __getitem__(self, index: Any) -> Codes:
        """Index the leading dimensions; the K slots of each position are kept."""
        picks = index if isinstance(index, tuple) else (index,)
        if Ellipsis not in picks:
            picks = (*picks, Ellipsis)
        scale, shift = (None if t is None else t[picks] for t in (self.scale, self.shift))
        picks = (*picks, slice(None))
        return Codes(self.indices[picks], self.values[picks], self.n_features, scale, shift)

    def of(self, feature: int) -> Tensor:
        """Return one feature's value at every position (0 where the feature is not active): float32 [...].

        >>> Codes(torch.tensor([[3, 1], [1, 0]]), torch.tensor([[2.0, 0.5], [1.0, 0.0]]), 4).of(1).tolist()
        [0.5, 1.0]
        """
        check_feature(feature, self.n_features)
        return torch.where(self.indices == feature, self.values, 0.0).sum(-1)

    def of_many(self, features: Tensor) -> Tensor:
        """Return the values of the given features (int64 [M]) at every position: float32 [..., M].

        >>> codes = Codes(torch.tensor([[3, 1]]), torch.tensor([[2.0, 0.5]]), 4)
        >>> codes.of_many(torch.tensor([1, 2, 3])).tolist()
        [[0.5, 0.0, 2.0]]
        """
        features = features.to(self.indices.device)
        out = self.values.new_zeros(*self.shape, features.numel())
        for slot in range(self.k):  # K small passes: a single one would need a table [..., K, M]
            hit = self.indices[..., slot, None] == features
            out += torch.where(hit, self.values[..., slot, None], 0.0)
        return out

    def dense(self) -> Tensor:
        """Return the dense code, float32 [..., N]; for small inputs only.

        >>> Codes(torch.tensor([3, 1]), torch.tensor([2.0, 0.5]), n_features=4).dense().tolist()
        [0.0, 0.5, 0.0, 2.0]
        """
        out = self.values.new_zeros(*self.shape, self.n_features)
        # add instead of assigning: empty slots (index 0, value 0) must not overwrite feature 0
        return out.scatter_add_(-1, self.indices, self.values)

    def peaks(self, keep: Tensor | None = None) -> Tensor:
        """Return each feature's maximum over each item's positions: [items, ..., K] -> float32 [items, N].

        keep: bool [items, ...]; False positions are ignored. A feature that never fires, or has only negative
        values, gets 0.

        >>> Codes(torch.tensor([[[1], [1], [2]]]), torch.tensor([[[3.0], [5.0], [4.0]]]), 4).peaks().tolist()
        [[0.0, 5.0, 4.0, 0.0]]
        """
        values = self.values if keep is None else torch.where(keep[..., None], self.values, 0.0)
        out = values.new_zeros(values.shape[0], self.n_features)
        return out.scatter_reduce_(1, self.indices.flatten(1), values.flatten(1), "amax")


def concatenate(parts: Sequence[Codes]) -> Codes:
    """Concatenate codes from the same dictionary along the first dimension.

    Codes that have fewer slots than others are padded with zeros.

    >>> one, two = (Codes(torch.ones(1, k, dtype=torch.int64), torch.ones(1, k), 4) for k in (1, 2))
    >>> concatenate([one, two]).values.tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    k = max(part.k for part in parts)
    indices, values = (
        torch.cat([functional.pad(getattr(part, name), (0, k - part.k)) for part in parts])
        for name in ("indices", "values")
    )
    scales, shifts = ([getattr(part, name) for part in parts] for name in ("scale", "shift"))
    scale, shift = (None if tensors[0] is None else torch.cat(tensors) for tensors in (scales, shifts))
    return Codes(indices, values, parts[0].n_features, scale, shift)


def check_feature(feature: int, n_features: int) -> None:
    """Raise RevelioError unless a dictionary with `n_features` features has this feature.

    >>> check_feature(3, n_features=4)
    >>> check_feature(4, n_features=4)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    comfy_revelio.errors.RevelioError: Feature 4 does not exist: ...
    """
    if not 0 <= feature < n_features:
        raise RevelioError(
            f"Feature {feature} does not exist: this dictionary has the features 0 to {n_features - 1}; "
            "choose one of them."
        )
