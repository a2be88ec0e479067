"""The weights of a dictionary while it learns, in the scaled and centred space of its inputs.

    x <- (x - mean) scale
    h = W_enc (x - bias) + b_enc
    z = f(h)                      the k largest of each token, or k per token on average (BatchTopK)
    x^ = z W_dec + bias

losses.py has what it minimises. A temporal dictionary scales and shifts x - bias before W_enc and z W_dec
after it (dictionary/timestep_modulation.py).

Shapes: B tokens of a batch, D width of the activations, N features, K active features.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Generator, Tensor, nn

from ..dictionary import Activation, Dictionary, InputTransform
from ..dictionary.activations import ActivationKind
from ..dictionary.timestep_modulation import Modulation, modulate, new_weights
from ..errors import RevelioError
from .config import TrainConfig
from .initial_weights import decoder_and_encoder, mean_and_scale, shared_bias
from .losses import aux_k_codes, aux_k_loss, reconstruction_loss, sparsity_loss

_MULTI = 4
"""How many times k features are active in Multi-TopK."""
_THRESHOLD_RATE = 0.01
"""How fast the threshold of BatchTopK follows the batches."""


class LearningSAE(nn.Module):
    """Calling it with a batch returns the loss and counts which features fired."""

    W_enc: nn.Parameter
    """[N, D]"""
    W_dec: nn.Parameter
    """[N, D]"""
    b_enc: nn.Parameter
    """[N]"""
    bias: nn.Parameter
    """[D]: subtracted from the input, added to the output."""
    time: nn.ParameterList
    """The weights of the modulation; empty without one."""
    mean: Tensor
    """[D]"""
    scale: Tensor
    """[D]"""
    variance: Tensor
    """[]: of the scaled inputs, mean over dimensions."""
    silent: Tensor
    """[N]: tokens since each feature last fired."""
    threshold: Tensor
    """[]: the smallest code of BatchTopK, which a single token must exceed later, without a batch."""
    revive: bool
    """Whether the loss includes AuxK."""

    def __init__(self, sample: Tensor, config: TrainConfig, generator: Generator) -> None:
        """sample: float32 [rows, D], from which means and scales are computed."""
        super().__init__()
        self.config = config
        mean, scale = mean_and_scale(sample, config)
        scaled = ((sample - mean) * scale.to(sample.device)).cpu()
        self.register_buffer("mean", mean.cpu())
        self.register_buffer("scale", scale)
        self.register_buffer("variance", scaled.var(dim=0, correction=0).mean())
        self.register_buffer("silent", torch.zeros(config.n_features))
        self.register_buffer("threshold", torch.zeros(()))
        decoder, encoder = decoder_and_encoder(config, sample.shape[1], generator)
        self.W_dec = nn.Parameter(decoder.clone())
        self.W_enc = nn.Parameter(encoder.clone())
        self.b_enc = nn.Parameter(torch.zeros(config.n_features))
        self.bias = nn.Parameter(shared_bias(config, scaled, -self.mean * self.scale).clone())
        weights = new_weights(sample.shape[1], generator) if config.temporal else ()
        self.time = nn.ParameterList([nn.Parameter(weight) for weight in weights])
        self.revive = False

    def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
        """The loss of raw activations x [B, D]; timestep [B] for a temporal dictionary."""
        x_BD = (x - self.mean) * self.scale
        time = self._modulation(timestep)
        h_BN = self._pre_activations(x_BD, time)
        z_BN = self._codes(h_BN, self.config.k)
        error_BD = x_BD - self._decode(z_BN, time)
        variance = self.variance
        with torch.no_grad():
            self.silent += len(x_BD)
            self.silent.masked_fill_((z_BN != 0).any(dim=0), 0.0)
            if self.config.loss == "batch":
                variance = (x_BD - x_BD.mean(dim=0)).square().mean().clamp(min=1e-12)
        loss = reconstruction_loss(error_BD, variance)
        if self.config.multi_topk:
            more_BN = self._codes(h_BN, min(_MULTI * self.config.k, self.config.n_features))
            missed = reconstruction_loss(x_BD - self._decode(more_BN, time), variance)
            loss = loss + self.config.multi_topk * missed
        if self.config.l1:
            loss = loss + self.config.l1 * sparsity_loss(z_BN, self.W_dec)
        if self.revive:
            # detached: AuxK must not move the living features, whose error this is
            dead_BN = aux_k_codes(h_BN, self.dead_mask(), self.config.aux_k)
            missed = aux_k_loss(error_BD.detach(), self._scaled_sum(dead_BN, time))
            loss = loss + self.config.aux_coef * missed
        return loss

    def _modulation(self, timestep: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Scale and shift of the input, scale and shift of the output."""
        if not self.config.temporal:
            return None
        if timestep is None:
            raise RevelioError(
                "A temporal dictionary needs the timestep of every activation; these have none."
            )
        W1, b1, W2, b2 = self.time
        return modulate(timestep, W1, b1, W2, b2)

    def _pre_activations(self, x_BD: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        if time is not None:
            x_BD = (x_BD - self.bias) * (1 + time[0]) + time[1]
            return torch.addmm(self.b_enc, x_BD, self.W_enc.T)
        # W_enc (x - bias) + b_enc, arranged so that no gradient of the whole batch goes to the bias
        return torch.addmm(self.b_enc - self.W_enc @ self.bias, x_BD, self.W_enc.T)

    def _codes(self, h_BN: Tensor, k: int) -> Tensor:
        """The codes of pre-activations, dense [B, N]."""
        kind = self.config.activation
        if kind == "relu":
            return h_BN.relu()
        if kind == "batchtopk":
            return self._batch_top_k(h_BN, k)
        values_BK, indices_BK = h_BN.topk(k, dim=1, sorted=False)
        values_BK = values_BK if kind == "topk_signed" else values_BK.relu()
        return torch.zeros_like(h_BN).scatter(1, indices_BK, values_BK)

    def _batch_top_k(self, h_BN: Tensor, k: int) -> Tensor:
        """The k B largest of the whole batch (BatchTopK, arXiv 2412.06410)."""
        flat = h_BN.relu().flatten()
        values, indices = flat.topk(min(k * len(h_BN), flat.numel()), sorted=False)
        if self.training and k == self.config.k:
            with torch.no_grad():
                lowest = torch.where(values > 0, values, torch.inf).min()
                lowest = torch.where(lowest.isfinite(), lowest, self.threshold).to(self.threshold.dtype)
                is_first = bool(self.threshold == 0)
                self.threshold.copy_(lowest if is_first else self.threshold.lerp(lowest, _THRESHOLD_RATE))
        return torch.zeros_like(flat).scatter(0, indices, values).reshape(h_BN.shape)

    def _scaled_sum(self, z_BN: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        """z W_dec, scaled by the timestep but without shift and bias."""
        sums_BD = (z_BN @ self.W_dec).float()
        return sums_BD if time is None else sums_BD * (1 + time[2])

    def _decode(self, z_BN: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        sums_BD = self._scaled_sum(z_BN, time)
        return (sums_BD if time is None else sums_BD + time[3]) + self.bias

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Drop the gradient along each decoder row: normalisation would undo that part anyway."""
        gradient = self.W_dec.grad
        assert gradient is not None
        gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale each decoder row to norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8))

    def dead_mask(self) -> Tensor:
        """The features that have not fired for `dead_after` tokens, bool [N]."""
        return self.silent > self.config.dead_after

    def update_metrics(self, loss: Tensor) -> dict[str, float]:
        """loss and dead_share after a step; AuxK is on from here while there are dead features."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RevelioError("Training diverged: the loss is NaN or infinite. Lower the learning rate.")
        dead_share = float(self.dead_mask().float().mean())
        self.revive = dead_share > 0 and self.config.aux_k > 0
        return {"loss": value, "dead_share": dead_share}

    @torch.no_grad()
    def to_dictionary(self) -> Dictionary:
        """The dictionary for raw activations, without the scaled and centred space.

        A scale shared by all dimensions divides the codes, which are then in units of the activations. A
        scale for each goes into the weights instead, because it must not change which features are the
        strongest.
        """
        n, config, scale = self.config.n_features, self.config, self.scale
        bias = self.bias / scale + self.mean
        W_enc, b_enc, W_dec, threshold = (
            weight.detach() for weight in (self.W_enc, self.b_enc, self.W_dec, self.threshold)
        )
        if config.scale_input == "each":
            W_enc, W_dec = W_enc * scale, W_dec / scale
        else:
            b_enc, threshold = b_enc / scale[0], threshold / scale[0]
        if config.activation == "batchtopk":
            activation = Activation("jumprelu", n, threshold.expand(n).clone())
        else:
            kind = cast(ActivationKind, config.activation)
            activation = Activation(kind, n if kind == "relu" else config.k)
        weights = (W_enc.clone(), b_enc.clone(), W_dec.clone(), bias.detach(), bias.detach().clone())
        return Dictionary(*weights, activation, inputs=InputTransform(modulation=self._raw_modulation()))

    def _raw_modulation(self) -> Modulation | None:
        """The modulation for raw activations: its two shifts are in their units, its factors have none."""
        if not self.config.temporal:
            return None
        W1, b1, W2, b2 = (weight.detach().clone() for weight in self.time)
        units = torch.cat([torch.ones(2, len(self.scale), device=self.scale.device)] * 2)
        units[1::2] = 1 / self.scale
        return Modulation(W1, b1, W2 * units.flatten()[:, None], b2 * units.flatten())
