"""The weights of a dictionary while it learns, in the scaled and centred space of its inputs."""

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

_MULTI = 4
"""How many times k features multi-TopK lets be active."""


class LearningSAE(nn.Module):
    """Calling it with a batch gives the loss and counts which features fired.

    Weights: W_enc, W_dec [n, d], b_enc [n], bias [d] (taken off the input, put on the output), and those of
    a modulation. Buffers that a checkpoint needs as well: mean and scale [d] of the inputs, variance, silent
    [n] (tokens since each feature last fired), threshold (of batchtopk).
    """

    mean: Tensor
    scale: Tensor
    variance: Tensor
    silent: Tensor
    threshold: Tensor

    def __init__(self, sample: Tensor, config: TrainConfig, generator: Generator) -> None:
        """sample: float32 [rows, d], from which means and scales are taken."""
        super().__init__()
        n, d = config.n_features, sample.shape[1]
        self.config = config
        mean = sample.mean(dim=0)
        square = (sample - mean).square().mean(dim=0)
        whole = float(square.mean())
        if not math.isfinite(whole) or whole == 0.0:
            raise RevelioError("The activations to train on are constant or not finite; harvest them again.")
        scale = torch.ones(d)
        if config.scale_input == "one":
            scale = torch.full((d,), 1 / math.sqrt(whole))
        elif config.scale_input == "each":
            scale = square.clamp(min=whole * 1e-6).rsqrt().cpu()
        scaled = ((sample - mean) * scale.to(sample.device)).cpu()
        self.register_buffer("mean", mean.cpu())
        self.register_buffer("scale", scale)
        self.register_buffer("variance", scaled.var(dim=0, correction=0).mean())
        self.register_buffer("silent", torch.zeros(n))
        self.register_buffer("threshold", torch.zeros(()))
        directions = torch.randn(n, d, generator=generator)
        encoder = directions
        if config.init == "kaiming":
            directions, encoder = (_kaiming(n, d, generator) for _ in range(2))
        directions = directions / directions.norm(dim=1, keepdim=True)
        encoder = directions if config.init == "tied" else encoder
        self.W_dec = nn.Parameter(directions.clone())
        self.W_enc = nn.Parameter(encoder.clone())
        self.b_enc = nn.Parameter(torch.zeros(n))
        # the inputs are centred, so their mean is 0 and a start at zeros is far from it
        start = {"mean": torch.zeros(d), "zeros": -self.mean * self.scale}.get(config.bias)
        self.bias = nn.Parameter(geometric_median(scaled) if start is None else start.clone())
        weights = new_weights(d, generator) if config.temporal else ()
        self.time = nn.ParameterList([nn.Parameter(weight) for weight in weights])
        self.revive = False

    def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
        """The loss of raw activations x [b, d]: error in shares of the variance, and what is added to it."""
        x = (x - self.mean) * self.scale
        time = self._time(timestep)
        h = self._pre_activations(x, time)
        z = self._active(h, self.config.k)
        error = x - self._decode(z, time)
        variance = self.variance
        with torch.no_grad():
            self.silent += len(x)
            self.silent.masked_fill_((z != 0).any(dim=0), 0.0)
            if self.config.loss == "batch":
                variance = (x - x.mean(dim=0)).square().mean().clamp(min=1e-12)
        loss: Tensor = error.square().mean() / variance
        if self.config.multi_topk:
            more = self._active(h, min(_MULTI * self.config.k, self.config.n_features))
            missed = (x - self._decode(more, time)).square().mean() / variance
            loss = loss + self.config.multi_topk * missed
        if self.config.l1:
            loss = loss + self.config.l1 * (z * self.W_dec.norm(dim=1)).sum(dim=1).mean()
        if self.revive:
            loss = loss + self.config.aux_coef * self._aux_loss(h, error.detach(), time)
        return loss

    def _time(self, timestep: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        if not self.config.temporal:
            return None
        if timestep is None:
            raise RevelioError(
                "A temporal dictionary needs the timestep of every activation; these have none."
            )
        a, b, c, d = self.time
        return modulate(timestep, a, b, c, d)

    def _pre_activations(self, x: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        if time is not None:
            x = (x - self.bias) * (1 + time[0]) + time[1]
            return torch.addmm(self.b_enc, x, self.W_enc.T)
        # (x - bias) @ W_enc.T, arranged so that no gradient of the whole batch goes to the bias
        return torch.addmm(self.b_enc - self.W_enc @ self.bias, x, self.W_enc.T)

    def _active(self, h: Tensor, k: int) -> Tensor:
        """The codes, dense [b, n]."""
        kind = self.config.activation
        if kind == "relu":
            return h.relu()
        if kind == "batchtopk":
            flat = h.relu().flatten()
            values, indices = flat.topk(min(k * len(h), flat.numel()), sorted=False)
            if self.training and k == self.config.k:
                with torch.no_grad():  # what a single activation has to exceed later, when there is no batch
                    lowest = torch.where(values > 0, values, torch.inf).min()
                    lowest = torch.where(lowest.isfinite(), lowest, self.threshold).to(self.threshold.dtype)
                    fresh = bool(self.threshold == 0)
                    self.threshold.copy_(lowest if fresh else self.threshold.lerp(lowest, 0.01))
            return torch.zeros_like(flat).scatter(0, indices, values).reshape(h.shape)
        values, indices = h.topk(k, dim=1, sorted=False)
        values = values if kind == "topk_signed" else values.relu()
        return torch.zeros_like(h).scatter(1, indices, values)

    def _decode(self, z: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        sums = (z @ self.W_dec).float()
        if time is not None:
            sums = sums * (1 + time[2]) + time[3]
        return sums + self.bias

    def _aux_loss(self, h: Tensor, error: Tensor, time: tuple[Tensor, ...] | None) -> Tensor:
        """How far the strongest dead features are from explaining the error of the living ones."""
        dead = self.silent > self.config.dead_after
        k = min(self.config.aux_k, self.config.n_features)
        values, indices = torch.where(dead, h, -torch.inf).topk(k, dim=1, sorted=False)
        z = torch.zeros_like(h).scatter(1, indices, values.relu())
        sums = (z @ self.W_dec).float()
        missed = (error - (sums if time is None else sums * (1 + time[2]))).square().mean()
        return (missed / error.square().mean()).nan_to_num(0.0)

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Drop the gradient along each decoder row: normalisation would undo that part anyway."""
        gradient = self.W_dec.grad
        assert gradient is not None
        gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8))

    def take_stock(self, loss: Tensor) -> dict[str, float]:
        """Figures for people; also decides whether there are dead features to revive."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RevelioError("Training went astray: the loss is not finite; lower the learning rate.")
        dead = float((self.silent > self.config.dead_after).float().mean())
        self.revive = dead > 0 and self.config.aux_k > 0
        return {"loss": value, "dead_share": dead}

    @torch.no_grad()
    def folded(self) -> Dictionary:
        """The dictionary for raw activations, without the scaled and centred space.

        One scale s for all dimensions is taken out of the codes, which so are in units of the activations;
        one for each goes into the weights, for it must not change which features are the strongest.
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
        modulation = None
        if config.temporal:
            W1, b1, W2, b2 = (weight.detach().clone() for weight in self.time)
            shifts = torch.cat([torch.ones(2, len(scale), device=scale.device)] * 2)
            shifts[1::2] = 1 / scale  # the two shifts are in units of the inputs, the two factors are not
            modulation = Modulation(W1, b1, W2 * shifts.flatten()[:, None], b2 * shifts.flatten())
        if config.activation == "batchtopk":
            activation = Activation("jumprelu", n, threshold.expand(n).clone())
        else:
            kind = cast(ActivationKind, config.activation)
            activation = Activation(kind, n if kind == "relu" else config.k)
        weights = (W_enc.clone(), b_enc.clone(), W_dec.clone(), bias.detach(), bias.detach().clone())
        return Dictionary(
            *weights,
            activation,
            inputs=InputTransform(modulation=modulation),
        )


def geometric_median(rows: Tensor, rounds: int = 100, limit: int = 32768) -> Tensor:
    """The point with the least sum of distances to the rows [n, d] (Weiszfeld's algorithm), float32 [d]."""
    rows = rows[:limit].float()
    guess = rows.mean(dim=0)
    for _ in range(rounds):
        weights = 1 / (rows - guess).norm(dim=1, keepdim=True).clamp(min=1e-6)
        following = (rows * weights).sum(dim=0) / weights.sum()
        if float((following - guess).norm()) <= 1e-6 * float(guess.norm()):
            return following
        guess = following
    return guess


def _kaiming(n: int, d: int, generator: Generator) -> Tensor:
    """kaiming_uniform_ as Revelio calls it, on a matrix [d, n], for which n counts as the fan-in."""
    bound = math.sqrt(6 / n)
    return torch.empty(n, d).uniform_(-bound, bound, generator=generator)
