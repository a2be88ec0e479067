"""The k-sparse autoencoder: x ~ z @ W_dec + b_out with at most k features active per token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import RevelioError
from .codes import Codes, check_feature
from .select import top_k
from .stats import FeatureStats

ACTIVATIONS = ("topk_relu", "topk_signed", "relu")
CAPTURED = ("output", "diff")
POOLING = ("token", "spatial_mean")

# One chunk of pre-activations; selection needs a small multiple of it in passing.
_CHUNK_BYTES = 64 * 1024 * 1024


class Dictionary(nn.Module):
    """Features as directions in one activation space.

    Buffers: W_enc [n, d], b_enc [n], W_dec [n, d], b_in [d], b_out [d]. Whatever type they are
    kept in, all maths is float32. Inputs may have any type and live on any device.

    activation: "topk_relu"   z = relu(topk(h)), h = (x - b_in) @ W_enc.T + b_enc
                "topk_signed" z = topk(h), negative values kept (Revelio's own training code)
                "relu"        z = relu(h); codes keep the k strongest, so k should exceed the usual L0
    captured: "output" of the hooked module, or "diff" = output - input.
    pooling: "token", or "spatial_mean" when trained on spatially averaged activations.
    figures: training figures by name, such as explained_variance.
    labels: name -> features, strongest first.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_in: Tensor
    b_out: Tensor
    stats_mean_active: Tensor | None
    stats_rate: Tensor | None
    stats_mean_map: Tensor | None

    def __init__(
        self,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_in: Tensor,
        b_out: Tensor,
        *,
        k: int,
        activation: str = "topk_relu",
        hook_point: str = "",
        captured: str = "output",
        pooling: str = "token",
        source_format: str = "revelio",
        model_family: str = "",
        figures: Mapping[str, float] | None = None,
        labels: Mapping[str, Sequence[int]] | None = None,
        stats: FeatureStats | None = None,
    ) -> None:
        super().__init__()
        weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_in": b_in, "b_out": b_out}
        for name, tensor in weights.items():
            self.register_buffer(name, tensor.detach())
        self.k = k
        self.activation = activation
        self.hook_point = hook_point
        self.captured = captured
        self.pooling = pooling
        self.source_format = source_format
        self.model_family = model_family
        self.figures = dict(figures or {})
        self.labels = {name: list(features) for name, features in (labels or {}).items()}
        self._check_form()
        self.set_stats(stats)

    @property
    def d_model(self) -> int:
        return self.W_enc.shape[1]

    @property
    def n_features(self) -> int:
        return self.W_enc.shape[0]

    @property
    def stats(self) -> FeatureStats | None:
        if self.stats_mean_active is None or self.stats_rate is None:
            return None
        return FeatureStats(self.stats_mean_active, self.stats_rate, self.stats_mean_map)

    def set_stats(self, stats: FeatureStats | None) -> None:
        """Attach statistics; as buffers, so that they move with the weights."""
        n = self.n_features
        if stats is not None:
            maps = stats.mean_map
            fits = stats.mean_active.shape == stats.rate.shape == (n,)
            if not fits or (maps is not None and (maps.ndim != 3 or len(maps) != n)):
                raise RevelioError(f"Feature statistics must have one row for each of the {n} features.")
        self.register_buffer("stats_mean_active", None if stats is None else stats.mean_active.detach())
        self.register_buffer("stats_rate", None if stats is None else stats.rate.detach())
        maps = None if stats is None or stats.mean_map is None else stats.mean_map.detach()
        self.register_buffer("stats_mean_map", maps)

    @torch.no_grad()
    def encode(self, x: Tensor, *, timestep: Tensor | float | None = None) -> Codes:
        """The sparse codes of x [..., d_model], as codes of the leading shape.

        Values come strongest first; among equal values the lower feature number wins. `timestep`
        is for dictionaries that depend on it; the kinds here do not.
        """
        rows = self._rows(x)
        indices, values = [], []
        for chunk in rows.split(self._chunk_rows()):
            i, v = top_k(self._pre_activations(chunk), self.k, signed=self.activation == "topk_signed")
            indices.append(i)
            values.append(v)
        shape = (*x.shape[:-1], self.k)
        if not indices:
            return Codes(rows.new_zeros(shape, dtype=torch.int64), rows.new_zeros(shape, dtype=torch.float32),
                         self.n_features)  # fmt: skip
        return Codes(torch.cat(indices).reshape(shape), torch.cat(values).reshape(shape), self.n_features)

    @torch.no_grad()
    def encode_dense(self, x: Tensor) -> Tensor:
        """relu((x - b_in) @ W_enc.T + b_enc) without top-k: [..., d_model] -> float32 [..., n_features].

        ENC of Concept Steerers (arXiv 2501.19066), used by its steering formula.
        """
        return self._pre_activations(self._rows(x)).relu_().reshape(*x.shape[:-1], self.n_features)

    @torch.no_grad()
    def decode(self, codes: Codes, *, timestep: Tensor | float | None = None) -> Tensor:
        """The reconstruction z @ W_dec + b_out of the codes: float32 [..., d_model]."""
        if codes.n_features != self.n_features:
            raise RevelioError(
                f"These codes are of a dictionary with {codes.n_features} features, "
                f"but this one has {self.n_features}."
            )
        device = codes.values.device
        W_dec, b_out = self.W_dec.to(device), self.b_out.to(device).float()
        indices = codes.indices.reshape(-1, codes.k)
        values = codes.values.float().reshape(-1, codes.k)
        out = b_out.new_empty(len(indices), self.d_model)
        step = max(1, _CHUNK_BYTES // (4 * codes.k * self.d_model))
        for start in range(0, len(indices), step):
            part = slice(start, start + step)
            chosen = W_dec[indices[part]].float()  # [rows, k, d]
            out[part] = torch.bmm(values[part, None, :], chosen)[:, 0] + b_out
        return out.reshape(*codes.shape, self.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of x [..., d_model], float32."""
        return self.decode(self.encode(x))

    def directions(self, features: Sequence[int] | Tensor) -> Tensor:
        """The decoder rows of the features: float32 [len, d_model]."""
        return self.W_dec[self.feature_index(features)].float()

    def feature_index(self, features: Sequence[int] | Tensor) -> Tensor:
        """Feature numbers as int64 [len] on the dictionary's device; RevelioError when out of range."""
        numbers = features.tolist() if isinstance(features, Tensor) else list(features)
        for feature in numbers:
            check_feature(feature, self.n_features)
        return torch.tensor(numbers, dtype=torch.int64, device=self.W_dec.device)

    def label_of(self, feature: int) -> str:
        """The label in which the feature ranks highest, or ""."""
        return label_of(self.labels, feature)

    def _rows(self, x: Tensor) -> Tensor:
        if x.ndim < 1 or x.shape[-1] != self.d_model:
            width = x.shape[-1] if x.ndim else 0
            raise RevelioError(
                f"This dictionary is for activations {self.d_model} wide (hook point "
                f"{self.hook_point or 'not named'}), but these are {width} wide; "
                "choose the hook point that it was trained on."
            )
        return x.reshape(-1, self.d_model)

    def _pre_activations(self, rows: Tensor) -> Tensor:
        device = rows.device
        centred = rows.float() - self.b_in.to(device).float()
        # Mixed precision around the caller must not reach in here: top-k needs all the digits.
        with torch.autocast(device.type, enabled=False):
            return torch.addmm(self.b_enc.to(device).float(), centred, self.W_enc.to(device).float().T)

    def _chunk_rows(self) -> int:
        return max(1, _CHUNK_BYTES // (4 * self.n_features))

    def _check_form(self) -> None:
        n, d = self.W_enc.shape if self.W_enc.ndim == 2 else (0, 0)
        shapes = {"W_enc": (n, d), "b_enc": (n,), "W_dec": (n, d), "b_in": (d,), "b_out": (d,)}
        for name, shape in shapes.items():
            found = tuple(getattr(self, name).shape)
            if found != shape or n == 0 or d == 0:
                raise RevelioError(
                    "A dictionary needs W_enc and W_dec [n, d], b_enc [n], b_in and b_out [d], "
                    f"but {name} is {list(found)}."
                )
        if not 1 <= self.k <= n:
            raise RevelioError(f"k must be from 1 to the {n} features of the dictionary, not {self.k}.")
        for what, value, known in (
            ("activation", self.activation, ACTIVATIONS),
            ("captured", self.captured, CAPTURED),
            ("pooling", self.pooling, POOLING),
        ):
            if value not in known:
                raise RevelioError(f"Unknown {what} {value!r} of a dictionary; known are {', '.join(known)}.")
        for label, features in self.labels.items():
            if any(not 0 <= feature < n for feature in features):
                raise RevelioError(f"Label {label!r} names a feature outside 0 to {n - 1}.")


def label_of(labels: Mapping[str, Sequence[int]], feature: int) -> str:
    """The label in which the feature ranks highest, or ""."""
    ranks = [(list(chosen).index(feature), label) for label, chosen in labels.items() if feature in chosen]
    return min(ranks)[1] if ranks else ""
