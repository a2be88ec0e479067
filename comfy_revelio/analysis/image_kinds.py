"""Learning to tell kinds of pictures apart by what a model makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dictionary.concept import single_kind_reader


def kind_reader(pooled: Tensor, kinds: Tensor) -> Tensor:
    """A linear reader of the kind of a picture, for Concept: float32 [number of kinds, d_model + 1].

    pooled: float [n, d_model], the activation of each map averaged over its cells; kinds: int [n], the kind
    of each, of whatever numbers; the reader's rows are for them in ascending order. Linear discriminant
    analysis with shrunk covariance (Ledoit and Wolf, 2004); needs scikit-learn.
    """
    number = kinds.unique().numel()
    if number < 2:
        return single_kind_reader(pooled.shape[1])
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    analysis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    analysis.fit(pooled.double().cpu().numpy(), kinds.cpu().numpy())
    weights, bias = torch.from_numpy(analysis.coef_), torch.from_numpy(analysis.intercept_)
    if number == 2:  # scikit-learn then scores the second kind alone
        weights, bias = torch.cat([-weights, weights]), torch.cat([-bias, bias])
    return torch.cat([weights, bias[:, None]], dim=1).float()
