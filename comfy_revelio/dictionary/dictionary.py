"""A dictionary: x ~ z @ W_dec + b_out, where only a few of the features z are not 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import RevelioError
from .codes import Codes, check_feature
from .concept import Concept
from .feature_stats import FeatureStats
from .gradient_pursuit import gradient_pursuit
from .timestep_modulation import Modulation
from .topk import group_max, positive, top_k

ACTIVATIONS = ("topk_relu", "topk_signed", "groupmax", "relu", "jumprelu", "gated", "pursuit")
NORMALISATIONS = ("none", "layernorm", "rms")
CAPTURED = ("output", "diff")
POOLING = ("token", "spatial_mean")
WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_in", "b_out")
EXTRAS = ("threshold", "gate_bias", "magnitude", "whitening", "whitening_bias")

_EPS = 1e-5
# One chunk of pre-activations; selection needs a small multiple of it in passing.
_CHUNK_BYTES = 64 * 1024 * 1024


class Dictionary(nn.Module):
    """Features as directions in one activation space.

    Buffers: W_enc [n, d], b_enc [n], W_dec [n, d], b_in [d], b_out [d]. Whatever type they are
    kept in, all maths is float32. Inputs may have any type and live on any device.

    activation, with h = (x - b_in) @ W_enc.T + b_enc:
        "topk_relu"   z = relu(topk(h))
        "topk_signed" z = topk(h), negative values kept (Revelio's own training code)
        "groupmax"    z = relu(h) of the largest in each of k groups of neighbours
        "relu"        z = relu(h)
        "jumprelu"    z = h where h > max(threshold, 0); threshold [n]. A BatchTopK dictionary is one, with
                      the same threshold for all features.
        "gated"       z = relu(g * magnitude + b_enc) where g + gate_bias > 0, g = (x - b_in) @ W_enc.T
        "pursuit"     z from gradient pursuit of x - b_in over the atoms W_enc (ITDA)
        The last four but "pursuit" have no fixed number of active features: codes keep at most the k
        strongest, so k is n unless somebody wants less.
    normalise: "none", or what is done to each activation first and undone by decoding: "layernorm" takes
        off its mean and divides by its deviation, "rms" divides by its root mean square.
    whitening [d, d], whitening_bias [d], clip: a stage before everything else,
        x <- clamp(x @ whitening + whitening_bias, -clip, clip), where the clip keeps it from being folded
        into W_enc (fae). Decoding does not undo it: W_dec and b_out already lead back.
    modulation: scales and shifts input and output by the timestep, which encode and decode then need.
    captured: "output" of the hooked module, or "diff" = output - input.
    pooling: "token", or "spatial_mean" when trained on spatially averaged activations.
    figures: training figures by name, such as explained_variance.
    labels: name -> features, strongest first.
    concepts: name -> the features that carry it, and how and where they change with it.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_in: Tensor
    b_out: Tensor
    threshold: Tensor | None
    gate_bias: Tensor | None
    magnitude: Tensor | None
    whitening: Tensor | None
    whitening_bias: Tensor | None
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
        threshold: Tensor | None = None,
        gate_bias: Tensor | None = None,
        magnitude: Tensor | None = None,
        normalise: str = "none",
        whitening: Tensor | None = None,
        whitening_bias: Tensor | None = None,
        clip: float = 0.0,
        modulation: Modulation | None = None,
        hook_point: str = "",
        captured: str = "output",
        pooling: str = "token",
        source_format: str = "revelio",
        model_family: str = "",
        figures: Mapping[str, float] | None = None,
        labels: Mapping[str, Sequence[int]] | None = None,
        concepts: Mapping[str, Concept] | None = None,
        stats: FeatureStats | None = None,
    ) -> None:
        super().__init__()
        weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_in": b_in, "b_out": b_out}
        extras = {
            "threshold": threshold,
            "gate_bias": gate_bias,
            "magnitude": magnitude,
            "whitening": whitening,
            "whitening_bias": whitening_bias,
        }
        for name, tensor in {**weights, **extras}.items():
            self.register_buffer(name, None if tensor is None else tensor.detach())
        self.modulation = modulation
        self.k = k
        self.activation = activation
        self.normalise = normalise
        self.clip = clip
        self.hook_point = hook_point
        self.captured = captured
        self.pooling = pooling
        self.source_format = source_format
        self.model_family = model_family
        self.figures = dict(figures or {})
        self.labels = {name: list(features) for name, features in (labels or {}).items()}
        self.concepts = dict(concepts or {})
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
        if self.stats_mean_active is None:
            return None
        return FeatureStats(self.stats_mean_active, self.stats_rate, self.stats_mean_map)

    def set_stats(self, stats: FeatureStats | None) -> None:
        """Attach statistics; as buffers, so that they move with the weights."""
        n = self.n_features
        if stats is not None:
            maps = stats.mean_map
            fits = all(s is None or s.shape == (n,) for s in (stats.mean_active, stats.rate))
            if not fits or (maps is not None and (maps.ndim != 3 or len(maps) != n)):
                raise RevelioError(f"Feature statistics must have one row for each of the {n} features.")
        for name in ("mean_active", "rate", "mean_map"):
            tensor = None if stats is None else getattr(stats, name)
            self.register_buffer(f"stats_{name}", None if tensor is None else tensor.detach())

    @torch.no_grad()
    def encode(self, x: Tensor, *, timestep: Tensor | float | None = None) -> Codes:
        """The sparse codes of x [..., d_model], as codes of the leading shape.

        Values come strongest first; among equal values the lower feature number wins.
        timestep: one number, or a tensor that broadcasts to the leading shape; needed by dictionaries with
        a modulation, ignored by others.
        """
        rows, times = self._rows(x), self._times(x, timestep)
        indices, values, scales, shifts = [], [], [], []
        size = self._chunk_rows()
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            inputs, scale, shift = self._inputs(rows[part], None if times is None else times[part])
            i, v = self._select(inputs)
            indices.append(i)
            values.append(v)
            scales.append(scale)
            shifts.append(shift)
        lead = x.shape[:-1]
        if not indices:
            empty = rows.new_zeros((*lead, self.k), dtype=torch.float32)
            return Codes(empty.long(), empty, self.n_features)
        width = max(v.shape[1] for v in values)
        shape = (*lead, width)
        return Codes(
            torch.cat([_widened(i, width) for i in indices]).reshape(shape),
            torch.cat([_widened(v, width) for v in values]).reshape(shape),
            self.n_features,
            _joined(scales, lead),
            _joined(shifts, lead),
        )

    @torch.no_grad()
    def encode_dense(self, x: Tensor) -> Tensor:
        """relu((x - b_in) @ W_enc.T + b_enc) without top-k: [..., d_model] -> float32 [..., n_features].

        ENC of Concept Steerers (arXiv 2501.19066), used by its steering formula.
        """
        inputs, _, _ = self._inputs(self._rows(x), None)
        return self._pre_activations(inputs).relu_().reshape(*x.shape[:-1], self.n_features)

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
        times = self._times(values.new_empty(*codes.shape, 1), timestep)
        out = b_out.new_empty(len(indices), self.d_model)
        step = max(1, _CHUNK_BYTES // (4 * codes.k * self.d_model))
        for start in range(0, len(indices), step):
            part = slice(start, start + step)
            chosen = W_dec[indices[part]].float()  # [rows, k, d]
            sums = torch.bmm(values[part, None, :], chosen)[:, 0]
            if self.modulation is not None and times is not None:
                _, _, scale, shift = self.modulation(times[part])
                sums = sums * (1 + scale) + shift
            out[part] = sums + b_out
        out = out.reshape(*codes.shape, self.d_model)
        if codes.scale is not None:
            out = out * codes.scale[..., None]
        return out if codes.shift is None else out + codes.shift[..., None]

    @torch.no_grad()
    def contribution(
        self,
        change: Tensor,
        features: Sequence[int] | Tensor,
        x: Tensor,
        *,
        timestep: Tensor | float | None = None,
        codes: Codes | None = None,
    ) -> Tensor:
        """What a change of some codes adds to the activations: float32 [..., d_model].

        change: [..., m], or anything that broadcasts to it, in the units of the codes of x; features: m
        numbers, or what feature_index made of them; x: the activations [..., d_model] that are changed,
        whose own size counts where the dictionary normalises them; codes: those of x, which know it already.
        """
        index = features if isinstance(features, Tensor) else self.feature_index(features)
        added = change @ self.W_dec[index].float().to(change.device)
        if self.modulation is not None:
            times = self._times(x, timestep)
            assert times is not None
            _, _, scale, _ = self.modulation(times)
            added = added * (1 + scale.reshape(x.shape))
        if self.normalise != "none":
            scale = None if codes is None or codes.scale is None else codes.scale[..., None]
            if scale is None:
                _, scale, _ = _normalised(x.float(), self.normalise)
            assert scale is not None
            added = added * scale
        return added

    def forward(self, x: Tensor, *, timestep: Tensor | float | None = None) -> Tensor:
        """The reconstruction of x [..., d_model], float32."""
        return self.decode(self.encode(x, timestep=timestep), timestep=timestep)

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

    def _times(self, x: Tensor, timestep: Tensor | float | None) -> Tensor | None:
        """The timestep of every row, float32 [rows]; None where the dictionary does not ask for one."""
        if self.modulation is None:
            return None
        if timestep is None:
            raise RevelioError(
                "This dictionary follows the timestep, so encoding and decoding need to be told the timestep."
            )
        times = torch.as_tensor(timestep, dtype=torch.float32, device=x.device)
        return times.expand(x.shape[:-1]).reshape(-1)

    def _inputs(self, rows: Tensor, times: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Rows as the encoder sees them, float32, and the scale and shift [rows] that decoding undoes."""
        device = rows.device
        rows = rows.float()
        if self.whitening is not None and self.whitening_bias is not None:
            with torch.autocast(device.type, enabled=False):
                rows = rows @ self.whitening.to(device).float() + self.whitening_bias.to(device).float()
            rows = rows.clamp(-self.clip, self.clip) if self.clip else rows
        rows, scale, shift = _normalised(rows, self.normalise)
        rows = rows - self.b_in.to(device).float()
        if self.modulation is not None and times is not None:
            scale_in, shift_in, _, _ = self.modulation(times)
            rows = rows * (1 + scale_in) + shift_in
        return rows, None if scale is None else scale[:, 0], None if shift is None else shift[:, 0]

    def _select(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Indices int64 and values float32 of the active features of each row, strongest first."""
        if self.activation == "pursuit":
            return positive(gradient_pursuit(inputs, self.W_enc.to(inputs.device).float(), self.k), self.k)
        if self.activation == "gated":
            return positive(self._gated(inputs), self.k)
        h = self._pre_activations(inputs)
        if self.activation == "groupmax":
            return group_max(h, self.k)
        if self.activation == "relu":
            return positive(h, self.k)
        if self.activation == "jumprelu":
            assert self.threshold is not None
            return positive(torch.where(h > self.threshold.to(h.device).float(), h, 0.0), self.k)
        return top_k(h, self.k, signed=self.activation == "topk_signed")

    def _gated(self, inputs: Tensor) -> Tensor:
        assert self.gate_bias is not None and self.magnitude is not None
        device = inputs.device
        g = self._pre_activations(inputs, bias=False)
        z = g * self.magnitude.to(device).float() + self.b_enc.to(device).float()
        return torch.where(g + self.gate_bias.to(device).float() > 0, z, 0.0)

    def _pre_activations(self, inputs: Tensor, *, bias: bool = True) -> Tensor:
        device = inputs.device
        W_enc = self.W_enc.to(device).float().T
        # Mixed precision around the caller must not reach in here: top-k needs all the digits.
        with torch.autocast(device.type, enabled=False):
            return torch.addmm(self.b_enc.to(device).float(), inputs, W_enc) if bias else inputs @ W_enc

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
        self._check_extras(n, d)
        if not 1 <= self.k <= n:
            raise RevelioError(f"k must be from 1 to the {n} features of the dictionary, not {self.k}.")
        if self.activation == "groupmax" and n % self.k:
            raise RevelioError(f"{n} features cannot be split into k = {self.k} equal groups.")
        for what, value, known in (
            ("activation", self.activation, ACTIVATIONS),
            ("normalisation", self.normalise, NORMALISATIONS),
            ("captured", self.captured, CAPTURED),
            ("pooling", self.pooling, POOLING),
        ):
            if value not in known:
                raise RevelioError(f"Unknown {what} {value!r} of a dictionary; known are {', '.join(known)}.")
        named = self.labels | {name: concept.features for name, concept in self.concepts.items()}
        for label, features in named.items():
            if any(not 0 <= feature < n for feature in features):
                raise RevelioError(f"{label!r} names a feature outside 0 to {n - 1}.")

    def _check_extras(self, n: int, d: int) -> None:
        """Each kind has exactly the extra tensors that it needs."""
        needed = {
            "threshold": (n,) if self.activation == "jumprelu" else None,
            "gate_bias": (n,) if self.activation == "gated" else None,
            "magnitude": (n,) if self.activation == "gated" else None,
            "whitening": (d, d) if self.whitening_bias is not None else None,
            "whitening_bias": (d,) if self.whitening is not None else None,
        }
        for name, shape in needed.items():
            tensor = getattr(self, name)
            found = None if tensor is None else tuple(tensor.shape)
            if found != shape:
                raise RevelioError(
                    f"A dictionary with activation {self.activation!r} needs {name} "
                    f"{'absent' if shape is None else list(shape)}, but it is "
                    f"{'absent' if found is None else list(found)}."
                )
        if self.clip < 0 or (self.clip and self.whitening is None):
            raise RevelioError(f"A clip of {self.clip} needs a whitening stage and must not be negative.")
        if self.modulation is not None and not self.modulation.fits(d):
            raise RevelioError(f"The modulation of this dictionary is not for activations {d} wide.")


def _normalised(rows: Tensor, kind: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """rows [..., d] float32 normalised, and what undoes it: scale and shift [..., 1]."""
    if kind == "layernorm":
        mean = rows.mean(dim=-1, keepdim=True)
        centred = rows - mean
        deviation = centred.std(dim=-1, keepdim=True)
        return centred / (deviation + _EPS), deviation, mean
    if kind == "rms":
        scale = torch.linalg.vector_norm(rows, dim=-1, keepdim=True) / rows.shape[-1] ** 0.5
        return rows / scale.clamp(min=torch.finfo(torch.float32).tiny), scale, None
    return rows, None, None


def _joined(parts: list[Tensor | None], lead: torch.Size) -> Tensor | None:
    """The parts [rows] as one tensor of the leading shape; None where there are none."""
    found = [part for part in parts if part is not None]
    return torch.cat(found).reshape(lead) if found else None


def _widened(tensor: Tensor, width: int) -> Tensor:
    """[rows, w] with zeros added on the right, up to the width."""
    return nn.functional.pad(tensor, (0, width - tensor.shape[1]))


def label_of(labels: Mapping[str, Sequence[int]], feature: int) -> str:
    """The label in which the feature ranks highest, or ""."""
    ranks = [(list(chosen).index(feature), label) for label, chosen in labels.items() if feature in chosen]
    return min(ranks)[1] if ranks else ""
