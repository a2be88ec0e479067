"""A dictionary of features, which encodes an activation x as a sparse code z and decodes z to x^.

    z = f(W_enc (x - b_in) + b_enc)       encode
    x^ = z W_dec + b_out                  decode

With f = TopK this is the k-sparse autoencoder of Gao et al. (arXiv 2406.04093, section 2.3), which Revelio
(arXiv 2411.16725) trains on diffusion models. activations.py lists all functions f. Inputs may be transformed
before encoding (input_transform.py, timestep_modulation.py); decoding then undoes the normalisation.

Shapes: B rows (all leading dimensions of x, flattened), D width of the activations, N features, K active
features, M chosen features. "..." is any leading shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor, nn

from ..errors import RevelioError
from .activations import Activation, Encoder
from .codes import Codes, check_feature, concatenate
from .feature_stats import FeatureStats
from .input_transform import InputTransform, normalise, whiten
from .metadata import Extras, Provenance, label_of

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_in", "b_out")
OPTIONAL_WEIGHTS = ("threshold", "gate_bias", "magnitude", "whitening", "whitening_bias")

# Largest table of pre-activations [B, N] made at once. Selecting features briefly takes a few times as much.
_CHUNK_BYTES = 64 * 1024 * 1024


class Dictionary(nn.Module):
    """Features as directions in one activation space.

    All computations are in float32, whatever type the weights have. Inputs may have any type and be on any
    device. The fields of `activation`, `inputs`, `provenance` and `extras` become attributes, and the
    attribute `activation` is the kind. Tensors among them are buffers, except those of concepts.

    >>> eye, zero = torch.eye(3), torch.zeros(3)
    >>> sae = Dictionary(eye, zero, 2 * eye, zero, zero, Activation("topk_relu", k=2))
    >>> codes = sae.encode(torch.tensor([0.5, -1.0, 2.0]))
    >>> codes.indices.tolist(), codes.values.tolist(), sae.decode(codes).tolist()
    ([2, 0], [2.0, 0.5], [1.0, 0.0, 4.0])
    """

    W_enc: Tensor
    """[n, d]"""
    b_enc: Tensor
    """[n]"""
    W_dec: Tensor
    """[n, d]: row f is the direction of feature f."""
    b_in: Tensor
    """[d]: subtracted before encoding."""
    b_out: Tensor
    """[d]: added after decoding; often the same as b_in."""
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
        activation: Activation,
        *,
        inputs: InputTransform | None = None,
        provenance: Provenance | None = None,
        extras: Extras | None = None,
    ) -> None:
        super().__init__()
        inputs, provenance = inputs or InputTransform(), provenance or Provenance()
        extras = extras or Extras()
        for name, tensor in zip(WEIGHTS, (W_enc, b_enc, W_dec, b_in, b_out), strict=True):
            self.register_buffer(name, tensor.detach())
        self._check_weights()
        activation.check(self.n_features)
        inputs.check(self.d_model)
        own = (activation.threshold, activation.gate_bias, activation.magnitude)
        optional = (*own, inputs.whitening, inputs.whitening_bias)
        for name, found in zip(OPTIONAL_WEIGHTS, optional, strict=True):
            self.register_buffer(name, None if found is None else found.detach())
        self.activation, self.k = activation.kind, activation.k
        self.normalise, self.clip, self.modulation = inputs.normalise, inputs.clip, inputs.modulation
        self.hook_point = provenance.hook_point
        self.captured, self.pooling = provenance.captured, provenance.pooling
        self.source_format, self.model_family = provenance.source_format, provenance.model_family
        self.metrics = dict(extras.metrics)
        self.labels = {name: list(features) for name, features in extras.labels.items()}
        self.concepts = dict(extras.concepts)
        self._check_names()
        self.set_stats(extras.stats)

    @property
    def d_model(self) -> int:
        """Width of the activations.

        >>> rows, zero = torch.ones(3, 2), torch.zeros(2)
        >>> Dictionary(rows, torch.zeros(3), rows, zero, zero, Activation("relu", k=1)).d_model
        2
        """
        return self.W_enc.shape[1]

    @property
    def n_features(self) -> int:
        """Number of features.

        >>> rows, zero = torch.ones(3, 2), torch.zeros(2)
        >>> Dictionary(rows, torch.zeros(3), rows, zero, zero, Activation("relu", k=1)).n_features
        3
        """
        return self.W_enc.shape[0]

    @property
    def stats(self) -> FeatureStats | None:
        """Statistics of the features; None if the statistics were not measured.

        >>> eye, zero = torch.eye(2), torch.zeros(2)
        >>> known = Extras(stats=FeatureStats(torch.tensor([3.0, 4.0])))
        >>> Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2), extras=known).stats.mean_active
        tensor([3., 4.])
        """
        if self.stats_mean_active is None:
            return None
        return FeatureStats(self.stats_mean_active, self.stats_rate, self.stats_mean_map)

    def set_stats(self, stats: FeatureStats | None) -> None:
        """Attach statistics as buffers, which move with the weights; None removes the statistics.

        >>> eye, zero = torch.eye(2), torch.zeros(2)
        >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
        >>> sae.set_stats(FeatureStats(torch.tensor([3.0, 4.0])))
        >>> sae.stats.mean_active.tolist()
        [3.0, 4.0]
        """
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
        """Encode x [..., d_model] as sparse codes with the leading shape of x.

        The strongest feature comes first; of equally strong features, the one with the lower number.
        timestep: one number, or a tensor that broadcasts to the leading shape; dictionaries with a
        modulation need it, others ignore it.

        >>> eye, zero = torch.eye(3), torch.zeros(3)
        >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("topk_relu", k=2))
        >>> codes = sae.encode(torch.tensor([[0.5, 1.0, 2.0]]))
        >>> codes.indices.tolist(), codes.values.tolist()
        ([[2, 1]], [[2.0, 1.0]])
        """
        x_BD, times_B = self._rows(x), self._times(timestep, x.shape[:-1], x.device)
        if not len(x_BD):
            empty = x.new_zeros(*x.shape[:-1], self.k, dtype=torch.float32)
            return Codes(empty.long(), empty, self.n_features)
        encoder = self._encoder(x.device)
        size = max(1, _CHUNK_BYTES // (4 * self.n_features))
        times = repeat(None) if times_B is None else times_B.split(size)
        parts = []
        for rows_BD, part_B in zip(x_BD.split(size), times, strict=False):
            # Turn off mixed precision, in case the caller uses it: top-k needs full precision.
            with torch.autocast(x.device.type, enabled=False):
                inputs_BD, scale_B, shift_B = self._encoder_inputs(rows_BD, part_B)
                indices_BK, values_BK = encoder.select(inputs_BD)
            parts.append(Codes(indices_BK, values_BK, self.n_features, scale_B, shift_B))
        return concatenate(parts).reshape(x.shape[:-1])

    @torch.no_grad()
    def encode_dense(self, x: Tensor) -> Tensor:
        """Return ReLU(W_enc (x - b_in) + b_enc), without top-k: [..., d_model] -> float32 [..., n_features].

        This is ENC in the steering formula of Concept Steerers (arXiv 2501.19066).

        >>> eye, zero = torch.eye(3), torch.zeros(3)
        >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("topk_relu", k=1))
        >>> sae.encode_dense(torch.tensor([0.5, -1.0, 2.0])).tolist()
        [0.5, 0.0, 2.0]
        """
        with torch.autocast(x.device.type, enabled=False):
            inputs_BD, _, _ = self._encoder_inputs(self._rows(x), None)
            h_BN = self._encoder(x.device).pre_activations(inputs_BD)
        return h_BN.relu_().reshape(*x.shape[:-1], self.n_features)

    @torch.no_grad()
    def decode(self, codes: Codes, *, timestep: Tensor | float | None = None) -> Tensor:
        """Return the reconstruction z W_dec + b_out that the codes z give: float32 [..., d_model].

        >>> rows, zero = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.zeros(2)
        >>> sae = Dictionary(rows, zero, rows, zero, torch.ones(2), Activation("relu", k=2))
        >>> sae.decode(Codes(torch.tensor([1]), torch.tensor([2.0]), 2)).tolist()  # 2 (3, 4) + (1, 1)
        [7.0, 9.0]
        """
        if codes.n_features != self.n_features:
            raise RevelioError(
                f"These codes come from a dictionary with {codes.n_features} features, but this one has "
                f"{self.n_features}."
            )
        device = codes.values.device
        W_dec_ND, b_out_D = self.W_dec.to(device), self.b_out.to(device).float()
        indices_BK = codes.indices.reshape(-1, codes.k)
        values_BK = codes.values.float().reshape(-1, codes.k)
        times_B = self._times(timestep, codes.shape, device)
        out_BD = b_out_D.new_empty(len(indices_BK), self.d_model)
        # Read only the decoder rows of active features, so that no dense table [B, N] is made. Every token
        # needs its own copy of its rows ([B, K, D] in all), so work in chunks.
        size = max(1, _CHUNK_BYTES // (4 * codes.k * self.d_model))
        for start in range(0, len(indices_BK), size):
            part = slice(start, start + size)
            directions_BKD = W_dec_ND[indices_BK[part]].float()
            sums_BD = torch.bmm(values_BK[part, None, :], directions_BKD)[:, 0]
            if self.modulation is not None and times_B is not None:
                _, _, scale_BD, shift_BD = self.modulation(times_B[part])
                sums_BD = sums_BD * (1 + scale_BD) + shift_BD
            out_BD[part] = sums_BD + b_out_D
        out = out_BD.reshape(*codes.shape, self.d_model)
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
        """Return what changing the codes of x by dz adds to x: dz W_dec[features], float32 [..., d_model].

        change: dz, [..., M] or a shape that broadcasts to [..., M], in the units of the codes of x.
        features: M feature numbers, or the tensor that `feature_index` returned for these numbers.
        x: activations [..., d_model]; if the dictionary normalises its inputs, the result scales with x.
        codes: the codes of x, if the caller already has them.

        >>> sae = Dictionary(torch.eye(2), torch.zeros(2), torch.tensor([[1.0, 0.0], [3.0, 4.0]]),
        ...                  torch.zeros(2), torch.zeros(2), Activation("relu", k=2))
        >>> sae.contribution(torch.tensor([0.5]), [1], torch.zeros(2)).tolist()
        [1.5, 2.0]
        """
        index = features if isinstance(features, Tensor) else self.feature_index(features)
        added = change @ self.W_dec[index].float().to(change.device)
        # b_out and the shifts are the same with and without the change, so they cancel; the scales remain.
        if self.modulation is not None:
            times_B = self._times(timestep, x.shape[:-1], x.device)
            assert times_B is not None
            _, _, scale_BD, _ = self.modulation(times_B)
            added = added * (1 + scale_BD.reshape(x.shape))
        if self.normalise != "none":
            scale = None if codes is None or codes.scale is None else codes.scale[..., None]
            if scale is None:
                _, scale, _ = normalise(x.float(), self.normalise)
            assert scale is not None
            added = added * scale
        return added

    def forward(self, x: Tensor, *, timestep: Tensor | float | None = None) -> Tensor:
        """Return the reconstruction of x [..., d_model], float32.

        >>> eye, zero = torch.eye(3), torch.zeros(3)
        >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("topk_relu", k=2))
        >>> sae(torch.tensor([0.5, 1.0, 2.0])).tolist()
        [0.0, 1.0, 2.0]
        """
        return self.decode(self.encode(x, timestep=timestep), timestep=timestep)

    def directions(self, features: Sequence[int] | Tensor) -> Tensor:
        """Return the decoder rows of the given features: float32 [len, d_model].

        >>> rows, zero = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.zeros(2)
        >>> Dictionary(rows, zero, rows, zero, zero, Activation("relu", k=2)).directions([1]).tolist()
        [[3.0, 4.0]]
        """
        return self.W_dec[self.feature_index(features)].float()

    def feature_index(self, features: Sequence[int] | Tensor) -> Tensor:
        """Check feature numbers and return them as int64 [len] on the dictionary's device.

        >>> eye, zero = torch.eye(2), torch.zeros(2)
        >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
        >>> sae.feature_index([1, 0])
        tensor([1, 0])
        """
        numbers = features.tolist() if isinstance(features, Tensor) else list(features)
        for feature in numbers:
            check_feature(feature, self.n_features)
        return torch.tensor(numbers, dtype=torch.int64, device=self.W_dec.device)

    def label_of(self, feature: int) -> str:
        """Return the label that ranks the feature highest, or "" if no label has the feature.

        >>> eye, zero, names = torch.eye(2), torch.zeros(2), Extras(labels={"hat": [1]})
        >>> Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2), extras=names).label_of(1)
        'hat'
        """
        return label_of(self.labels, feature)

    def _rows(self, x: Tensor) -> Tensor:
        """Return x as rows [B, D]."""
        if x.ndim < 1 or x.shape[-1] != self.d_model:
            width = x.shape[-1] if x.ndim else 0
            raise RevelioError(
                f"This dictionary is for activations {self.d_model} wide (hook point "
                f"{self.hook_point or 'unknown'}), but the given activations are {width} wide; "
                "choose the hook point that the dictionary was trained on."
            )
        return x.reshape(-1, self.d_model)

    def _times(
        self, timestep: Tensor | float | None, lead: torch.Size, device: torch.device
    ) -> Tensor | None:
        """Return the timestep of each row, float32 [B]; None if the dictionary has no modulation."""
        if self.modulation is None:
            return None
        if timestep is None:
            raise RevelioError(
                "This dictionary depends on the timestep; pass the timestep to encode and decode."
            )
        return torch.as_tensor(timestep, dtype=torch.float32, device=device).expand(lead).reshape(-1)

    def _encoder(self, device: torch.device) -> Encoder:
        """Return the encoder with float32 weights on the given device."""
        W_enc_ND, b_enc_N, *own = (
            None if tensor is None else tensor.to(device).float()
            for tensor in (self.W_enc, self.b_enc, self.threshold, self.gate_bias, self.magnitude)
        )
        assert W_enc_ND is not None and b_enc_N is not None
        return Encoder(W_enc_ND, b_enc_N, Activation(self.activation, self.k, *own))

    def _encoder_inputs(
        self, x_BD: Tensor, times_B: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the encoder's input, float32 [B, D], and scale and shift [B] (or None) of `normalise`."""
        x_BD = x_BD.float()
        if self.whitening is not None and self.whitening_bias is not None:
            x_BD = whiten(x_BD, self.whitening, self.whitening_bias, self.clip)
        x_BD, scale_B1, shift_B1 = normalise(x_BD, self.normalise)
        x_BD = x_BD - self.b_in.to(x_BD.device).float()
        if self.modulation is not None and times_B is not None:
            scale_BD, shift_BD, _, _ = self.modulation(times_B)
            x_BD = x_BD * (1 + scale_BD) + shift_BD
        scale_B, shift_B = (None if t is None else t[:, 0] for t in (scale_B1, shift_B1))
        return x_BD, scale_B, shift_B

    def _check_weights(self) -> None:
        n, d = self.W_enc.shape if self.W_enc.ndim == 2 else (0, 0)
        shapes = {"W_enc": (n, d), "b_enc": (n,), "W_dec": (n, d), "b_in": (d,), "b_out": (d,)}
        for name, shape in shapes.items():
            found = tuple(getattr(self, name).shape)
            if found != shape or n == 0 or d == 0:
                raise RevelioError(
                    "A dictionary needs W_enc and W_dec [n, d], b_enc [n], b_in and b_out [d]; "
                    f"got {name} {list(found)}."
                )

    def _check_names(self) -> None:
        named = self.labels | {name: concept.features for name, concept in self.concepts.items()}
        for label, features in named.items():
            if any(not 0 <= feature < self.n_features for feature in features):
                raise RevelioError(f"{label!r} names a feature outside 0 to {self.n_features - 1}.")
