"""Learn to recognise the kind of an image from a model's activations."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dictionary.concept import single_kind_reader


def kind_reader(pooled: Tensor, kinds: Tensor) -> Tensor:
    """Fit a `Concept.reader`, a linear classifier of image kinds: float32 [number of kinds, d_model + 1].

    pooled: float [n, d_model], the mean activation of each image. kinds: int [n], the kind of each image; the
    result's rows are in ascending order of these numbers. The method is linear discriminant analysis with
    shrunk covariance (Ledoit and Wolf, 2004); it needs scikit-learn.
    """
    count = kinds.unique().numel()
    if count < 2:
        return single_kind_reader(pooled.shape[1])
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    analysis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    analysis.fit(pooled.double().cpu().numpy(), kinds.cpu().numpy())
    weights, bias = torch.from_numpy(analysis.coef_), torch.from_numpy(analysis.intercept_)
    if count == 2:  # scikit-learn then scores the second kind alone
        weights, bias = torch.cat([-weights, weights]), torch.cat([-bias, bias])
    return torch.cat([weights, bias[:, None]], dim=1).float()
