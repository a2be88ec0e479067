"""Training a TopK sparse autoencoder.

After Gao et al., "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093): tied
initialisation, decoder rows of unit norm with the gradient along them removed, and AuxK, by which
dead features learn to explain what the living ones leave over. Inputs are centred and scaled to a
unit mean square for training; the scale is folded into the weights afterwards, so the dictionary
works on raw activations.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError

Rows = Tensor | Callable[[int, Generator], Tensor]
"""Activations [N, d] to draw batches from, or a function (step, generator) -> [batch, d]."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called as progress(step, steps, figures) now and then; whatever it raises ends the training."""


@dataclass(frozen=True)
class TrainConfig:
    """How a dictionary is trained."""

    n_features: int = 2048
    """Number of features to learn."""
    k: int = 16
    """Features active per token."""
    steps: int = 4000
    """Optimiser steps."""
    batch: int = 4096
    """Tokens per step."""
    learning_rate: float = 3e-3
    """Adam's, after the warm-up."""
    warmup: int = 200
    """Steps over which the learning rate rises from 0."""
    decay_share: float = 0.2
    """Share of the steps, at the end, over which it falls to 0."""
    aux_k: int = 128
    """Dead features that share in explaining the remaining error; 0 turns AuxK off."""
    aux_coef: float = 1 / 32
    """Weight of the AuxK loss."""
    dead_after: int = 400_000
    """Tokens without firing after which a feature counts as dead."""
    unit_decoder: bool = True
    """Keep decoder rows at norm 1, so that values of all features share one scale."""
    scale_input: bool = True
    """Train on inputs of unit mean square; folded into the weights afterwards."""
    seed: int = 0
    """Of the initial weights and of the batches."""
    device: str = ""
    """Where to train; empty means a GPU if there is one, else the CPU."""
    amp: bool = False
    """Matrix products in bfloat16; faster on a GPU, slower on most CPUs, and a little coarser."""
    report_every: int = 100
    """Steps between calls of progress and checks for dead features; each makes the device wait."""


@torch.inference_mode(False)  # ComfyUI runs its nodes in inference mode, where nothing can learn
@torch.enable_grad()
def train(rows: Rows, config: TrainConfig, progress: Progress | None = None) -> Dictionary:
    """Train a dictionary on activations; it comes back on the training device, without statistics.

    The same rows, config and device give the same dictionary up to the device's own rounding.
    """
    _check(config)
    device = _device(config.device)
    generator = torch.Generator(device).manual_seed(config.seed)
    draw = _drawer(rows, config, device, generator)
    sae = _TopKSAE(_sample(draw, config), config, generator)
    optimizer = torch.optim.Adam(sae.parameters, lr=config.learning_rate, fused=device.type == "cuda")
    autocast = torch.autocast(device.type, torch.bfloat16) if config.amp else contextlib.nullcontext()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config)
        x = (draw(step) - sae.mean) * sae.scale
        with autocast:
            loss = sae.loss(x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.unit_decoder:
            sae.remove_parallel_gradient()
        optimizer.step()
        if config.unit_decoder:
            sae.normalise_decoder()
        last = step + 1 == config.steps
        if last or (step + 1) % config.report_every == 0:
            figures = sae.take_stock(loss)
            if progress is not None:
                progress(step + 1, config.steps, figures)
    return sae.folded()


class _TopKSAE:
    """Weights and running state during training, in the scaled and centred space."""

    def __init__(self, sample: Tensor, config: TrainConfig, generator: Generator) -> None:
        n, d, device = config.n_features, sample.shape[1], sample.device
        self.config = config
        self.mean = sample.mean(0)
        square = float((sample - self.mean).square().mean())
        if not math.isfinite(square) or square == 0.0:
            raise RevelioError("The activations to train on are constant or not finite; harvest them again.")
        self.scale = 1.0 / math.sqrt(square) if config.scale_input else 1.0
        self.variance = square * self.scale**2
        directions = torch.randn(n, d, generator=generator, device=device)
        directions /= directions.norm(dim=1, keepdim=True)
        self.W_dec = directions.requires_grad_()
        self.W_enc = directions.detach().clone().requires_grad_()
        self.b_enc = torch.zeros(n, device=device, requires_grad=True)
        self.bias = torch.zeros(
            d, device=device, requires_grad=True
        )  # taken off the input, put on the output
        self.parameters = [self.W_enc, self.b_enc, self.W_dec, self.bias]
        self.silent = torch.zeros(n, device=device)  # tokens since each feature last fired
        self.revive = False

    def loss(self, x: Tensor) -> Tensor:
        """Error in shares of the variance, plus AuxK; counts which features fired."""
        # (x - bias) @ W_enc.T, arranged so that no gradient of the whole batch goes to the bias
        h = torch.addmm(self.b_enc - self.W_enc @ self.bias, x, self.W_enc.T)
        values, indices = h.topk(self.config.k, dim=1, sorted=False)
        z = torch.zeros_like(h).scatter(1, indices, values.relu())
        error = x - (z @ self.W_dec + self.bias).float()
        with torch.no_grad():
            self.silent += len(x)
            self.silent.masked_fill_((z > 0).any(0), 0.0)
        loss = error.square().mean() / self.variance
        if self.revive:
            loss = loss + self.config.aux_coef * self._aux_loss(h, error.detach())
        return loss

    def _aux_loss(self, h: Tensor, error: Tensor) -> Tensor:
        """How far the strongest dead features are from explaining the error of the living ones."""
        dead = self.silent > self.config.dead_after
        k = min(self.config.aux_k, self.config.n_features)
        values, indices = torch.where(dead, h, -torch.inf).topk(k, dim=1, sorted=False)
        z = torch.zeros_like(h).scatter(1, indices, values.relu())
        missed = (error - (z @ self.W_dec).float()).square().mean()
        return (missed / error.square().mean()).nan_to_num(0.0)

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Drop the gradient along each decoder row: normalisation would undo that part anyway."""
        gradient = self.W_dec.grad
        assert gradient is not None
        gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8)

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
        """The dictionary for raw activations: x' = scale * (x - mean), and values are divided by scale."""
        bias = self.bias / self.scale + self.mean
        return Dictionary(
            self.W_enc.detach().clone(),
            self.b_enc / self.scale,
            self.W_dec.detach().clone(),
            bias,
            bias.clone(),
            k=self.config.k,
        )


def _schedule(step: int, config: TrainConfig) -> float:
    """Factor of the learning rate: up over the warm-up, flat, down to 0 at the end."""
    rise = (step + 1) / max(1, config.warmup)
    fall = (config.steps - step) / max(1.0, config.decay_share * config.steps)
    return min(1.0, rise, fall)


def _drawer(
    rows: Rows, config: TrainConfig, device: torch.device, generator: Generator
) -> Callable[[int], Tensor]:
    """A function step -> [batch, d] float32 on the device."""
    if not isinstance(rows, Tensor):
        return lambda step: rows(step, generator).to(device, torch.float32)
    if rows.ndim != 2 or not len(rows):
        raise RevelioError(
            f"Activations to train on must be [rows, width] and not empty, not {list(rows.shape)}."
        )
    picker = (
        generator
        if rows.device.type == device.type
        else torch.Generator(rows.device).manual_seed(config.seed)
    )

    def draw(step: int) -> Tensor:
        picks = torch.randint(len(rows), (config.batch,), generator=picker, device=rows.device)
        return rows[picks].to(device, torch.float32)

    return draw


def _sample(draw: Callable[[int], Tensor], config: TrainConfig) -> Tensor:
    """About 32,768 rows, for the mean and the scale."""
    batches = max(1, min(16, 32768 // max(1, config.batch)))
    return torch.cat([draw(step) for step in range(batches)])


def _check(config: TrainConfig) -> None:
    for name in ("n_features", "k", "steps", "batch", "report_every"):
        if getattr(config, name) < 1:
            raise RevelioError(
                f"To train a dictionary {name} must be 1 or more, not {getattr(config, name)}."
            )
    if config.k > config.n_features:
        raise RevelioError(f"k must be from 1 to the {config.n_features} features, not {config.k}.")
    if not 0.0 < config.learning_rate < math.inf:
        raise RevelioError(f"The learning rate must be a number above 0, not {config.learning_rate}.")


def _device(name: str) -> torch.device:
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
