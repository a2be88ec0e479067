"""A dictionary during training. Its weights apply to centred and scaled activations.

    x <- (x - mean) scale
    h = W_enc (x - bias) + b_enc
    z = f(h)                      keep the k largest per token (TopK), or k per token on average (BatchTopK)
    x^ = z W_dec + bias

losses.py defines the loss. A temporal dictionary also scales and shifts x - bias (before W_enc is applied)
and z W_dec, depending on the timestep (dictionary/timestep_modulation.py).

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
"""Multi-TopK adds a second reconstruction, with 4 times k active features."""
_THRESHOLD_RATE = 0.01
"""BatchTopK's threshold is a moving average over batches; this is the weight of the newest batch."""


class LearningSAE(nn.Module):
    """A dictionary during training. Calling the module on a batch returns the loss and updates `silent`."""

    W_enc: nn.Parameter
    """[N, D]"""
    W_dec: nn.Parameter
    """[N, D]"""
    b_enc: nn.Parameter
    """[N]"""
    bias: nn.Parameter
    """[D]: subtracted from the input, added to the output."""
    time: nn.ParameterList
    """The weights of the timestep modulation; empty if the dictionary is not temporal."""
    mean: Tensor
    """[D]"""
    scale: Tensor
    """[D]"""
    variance: Tensor
    """[]: variance of the scaled inputs, averaged over the dimensions."""
    silent: Tensor
    """[N]: number of tokens since each feature last fired."""
    threshold: Tensor
    """[]: moving average of BatchTopK's smallest code. The finished dictionary drops smaller codes."""
    revive: bool
    """Whether the loss currently includes AuxK."""

    def __init__(self, sample: Tensor, config: TrainConfig, generator: Generator) -> None:
        """Initialise the weights, and compute means and scales from `sample`: float32 [rows, D]."""
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
        """Return the loss on raw activations x [B, D]; a temporal dictionary needs their timestep [B]."""
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
            # detached: AuxK must not train the living features, which left this error
            dead_BN = aux_k_codes(h_BN, self.dead_mask(), self.config.aux_k)
            missed = aux_k_loss(error_BD.detach(), self._scaled_sum(dead_BN, time))
            loss = loss + self.config.aux_coef * missed
        return loss

    def _modulation(self, timestep: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Return scale and shift of the input, then scale and shift of the output; None if not temporal."""
        if not self.config.temporal:
            return None
        if timestep is None:
            raise RevelioError(
                "A temporal dictionary needs the timestep of every activation, but these have none."
            )
        W1, b1, W2, b2 = self.time
        return modulate(timestep, W1, b1, W2, b2)

    def _pre_activations(self, x_BD: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        if time is not None:
            x_BD = (x_BD - self.bias) * (1 + time[0]) + time[1]
            return torch.addmm(self.b_enc, x_BD, self.W_enc.T)
        # W_enc (x - bias) + b_enc, rearranged so that computing the bias gradient needs no [B, D] tensor
        return torch.addmm(self.b_enc - self.W_enc @ self.bias, x_BD, self.W_enc.T)

    def _codes(self, h_BN: Tensor, k: int) -> Tensor:
        """Compute the codes z, dense [B, N], from the pre-activations h."""
        kind = self.config.activation
        if kind == "relu":
            return h_BN.relu()
        if kind == "batchtopk":
            return self._batch_top_k(h_BN, k)
        values_BK, indices_BK = h_BN.topk(k, dim=1, sorted=False)
        values_BK = values_BK if kind == "topk_signed" else values_BK.relu()
        return torch.zeros_like(h_BN).scatter(1, indices_BK, values_BK)

    def _batch_top_k(self, h_BN: Tensor, k: int) -> Tensor:
        """Keep the k * B largest pre-activations of the whole batch (BatchTopK, arXiv 2412.06410)."""
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
        """Return z W_dec times the timestep's output scale, without adding its shift or the bias."""
        sums_BD = (z_BN @ self.W_dec).float()
        return sums_BD if time is None else sums_BD * (1 + time[2])

    def _decode(self, z_BN: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        sums_BD = self._scaled_sum(z_BN, time)
        return (sums_BD if time is None else sums_BD + time[3]) + self.bias

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Remove the gradient along each decoder row, because normalise_decoder would undo its effect."""
        gradient = self.W_dec.grad
        assert gradient is not None
        gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale each decoder row to norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8))

    def dead_mask(self) -> Tensor:
        """Return a mask, bool [N], of the features that have not fired for more than `dead_after` tokens."""
        return self.silent > self.config.dead_after

    def update_metrics(self, loss: Tensor) -> dict[str, float]:
        """Return the loss and dead_share after a step. Turn AuxK on if any feature is dead, else off."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RevelioError("Training diverged: the loss is NaN or infinite. Lower the learning rate.")
        dead_share = float(self.dead_mask().float().mean())
        self.revive = dead_share > 0 and self.config.aux_k > 0
        return {"loss": value, "dead_share": dead_share}

    @torch.no_grad()
    def to_dictionary(self) -> Dictionary:
        """Return a dictionary for raw activations, by folding the mean and the scale into the weights.

        If all dimensions share one scale, the codes are divided by this scale, and are then in the units of
        the activations. If each dimension has a scale, the scales are folded into W_enc and W_dec. This does
        not change the codes, and therefore not the choice of the strongest features.
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
        """Return the modulation for raw activations: divide its shifts by the scale, keep its factors."""
        if not self.config.temporal:
            return None
        W1, b1, W2, b2 = (weight.detach().clone() for weight in self.time)
        units = torch.cat([torch.ones(2, len(self.scale), device=self.scale.device)] * 2)
        units[1::2] = 1 / self.scale
        return Modulation(W1, b1, W2 * units.flatten()[:, None], b2 * units.flatten())
