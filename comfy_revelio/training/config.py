"""The options for training a dictionary, and named presets with the recipes of the papers.

The presets use the numbers in the papers' own code, except for settings that depend on the size of the data.
No preset sets the number of steps or the batch size: the papers' 400 million tokens are too many for a trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import RevelioError, checked_choice

Selection = Literal["topk_relu", "topk_signed", "batchtopk", "relu", "pursuit"]
Start = Literal["tied", "kaiming"]
BiasStart = Literal["mean", "geometric_median", "zeros"]
InputScale = Literal["one", "each", "none"]
LossScale = Literal["variance", "batch"]
Schedule = Literal["end", "linear", "cosine", "constant"]


@dataclass(frozen=True)
class TrainConfig:
    """The options for training a dictionary."""

    n_features: int = 2048
    """Number of features to learn."""
    k: int = 16
    """Number of active features per token; for batchtopk, their average number over a batch."""
    activation: Selection = "topk_relu"
    """topk_relu, topk_signed, batchtopk, relu (needs l1), or pursuit (ITDA: the features are activations)."""
    temporal: bool = False
    """Scale and shift the input and output depending on the timestep (as in TIDE, arXiv 2503.07050)."""
    steps: int = 4000
    """Optimiser steps."""
    batch: int = 4096
    """Tokens per step, summed over all processes."""
    learning_rate: float = 3e-3
    """Learning rate of Adam after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup: int = 200
    """Steps over which the learning rate rises from 0."""
    schedule: Schedule = "end"
    """The learning rate falls to 0 in the last steps (end), in all (linear, cosine) or never (constant)."""
    decay_share: float = 0.2
    """For schedule end: the learning rate falls during this last share of the steps."""
    clip: float = 0.0
    """Clip the gradient to this norm; 0 turns clipping off."""
    ema: float = 0.0
    """Return a moving average of the weights, with this decay; 0 returns the last weights instead."""
    loss: LossScale = "variance"
    """Divide the squared error by the variance of all data (variance) or of the batch (batch; Revelio)."""
    aux_k: int = 128
    """Number of dead features that AuxK trains on the remaining error (losses.py); 0 turns AuxK off."""
    aux_coef: float = 1 / 32
    """Weight of the AuxK loss."""
    multi_topk: float = 0.0
    """Weight of the reconstruction loss with 4 k active features (sparsify and SAeUron use 1/8)."""
    l1: float = 0.0
    """For relu: weight of the sparsity loss (L_1 in losses.py)."""
    dead_after: int = 400_000
    """Count a feature as dead once it has not fired for more than this many tokens."""
    unit_decoder: bool = True
    """Keep every decoder row at norm 1, so that the codes of all features share one scale."""
    init: Start = "tied"
    """tied: the encoder starts equal to the decoder; kaiming: the encoder starts independently (Revelio)."""
    bias: BiasStart = "mean"
    """Initial value of the shared bias: mean, geometric_median or zeros."""
    scale_input: InputScale = "one"
    """one: one factor, to mean variance 1; each: every dimension to variance 1; none: no scaling."""
    fvu_threshold: float = 0.3
    """pursuit: an activation becomes a feature if its squared error exceeds this share of the variance."""
    seed: int = 0
    """Seed of the initial weights and of the batches."""
    device: str = ""
    """Device to train on, cpu or cuda; by default a GPU if there is one."""
    amp: bool = False
    """Multiply matrices in bfloat16: faster on a GPU, slower on most CPUs, and slightly less precise."""
    report_every: int = 100
    """Steps between progress reports, which also check for dead features. Each one stalls the device."""

    def __post_init__(self) -> None:
        """Raise RevelioError if a setting is invalid or two settings contradict each other."""
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), type(field.default))
        for name in ("n_features", "k", "steps", "batch", "report_every"):
            if getattr(self, name) < 1:
                raise RevelioError(
                    f"To train a dictionary, {name} must be 1 or more, not {getattr(self, name)}."
                )
        if self.k > self.n_features:
            raise RevelioError(f"k must be from 1 to the {self.n_features} features, not {self.k}.")
        if not 0.0 < self.learning_rate < math.inf:
            raise RevelioError(f"The learning rate must be a number above 0, not {self.learning_rate}.")
        for name, kind in get_type_hints(TrainConfig).items():
            if get_origin(kind) is Literal:
                checked_choice(name, getattr(self, name), get_args(kind))
        if self.temporal and self.scale_input == "each":
            raise RevelioError("A temporal dictionary cannot use scale_input each; choose one or none.")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate at a step (from 0): rising in the warm-up, then following the schedule.

        >>> TrainConfig(steps=100, warmup=10, learning_rate=1.0).learning_rate_at(4)
        0.5
        """
        rise = (step + 1) / max(1, self.warmup)
        left = (self.steps - step) / self.steps
        fall = {
            "end": left / max(1e-9, self.decay_share),
            "linear": left,
            "cosine": 0.5 * (1 - math.cos(math.pi * left)),
            "constant": 1.0,
        }[self.schedule]
        return self.learning_rate * min(1.0, rise, fall)


def _check_type(name: str, value: Any, kind: type) -> None:
    """Raise RevelioError unless a setting's value has the type of its default."""
    number = type(value) in (int, float) and math.isfinite(value)
    is_sound, expected = {
        bool: (type(value) is bool, "true or false"),
        int: (type(value) is int, "a whole number"),
        float: (number, "a number"),
        str: (type(value) is str, "a word"),
        tuple: (_is_pair(value), "two numbers, as in [0.9, 0.999]"),
    }[kind]
    if not is_sound:
        raise RevelioError(f"To train a dictionary, {name} must be {expected}, not {value!r}.")


def _is_pair(value: Any) -> bool:
    return (
        type(value) in (tuple, list) and len(value) == 2 and all(type(part) in (int, float) for part in value)
    )


@dataclass(frozen=True)
class Preset:
    """A named recipe for training."""

    about: str
    expansion: float
    """Number of features divided by the width of the activations."""
    settings: Mapping[str, Any]
    """The fields of TrainConfig for which the recipe differs from the default."""


PRESETS: dict[str, Preset] = {
    "topk": Preset("plain TopK with AuxK, quick on small data", 16, {"k": 32}),
    "temporal": Preset("as topk, but modulated by the timestep", 16, {"k": 32, "temporal": True}),
    "revelio": Preset(
        "Revelio (arXiv 2411.16725): signed codes, no AuxK, untied start",
        64,
        {
            "k": 32, "activation": "topk_signed", "learning_rate": 4e-4, "warmup": 500,
            "schedule": "constant", "loss": "batch", "aux_k": 0, "init": "kaiming", "scale_input": "none",
        },
    ),
    "steerers": Preset(
        "Concept Steerers (arXiv 2501.19066), without its doubled bias",
        4,
        {
            "k": 32, "learning_rate": 4e-4, "eps": 6.25e-10, "warmup": 0, "schedule": "constant",
            "aux_k": 256, "dead_after": 10_000_000, "bias": "geometric_median", "scale_input": "none",
        },
    ),
    "sdxl-unbox": Preset(
        "SDXL Unbox (arXiv 2410.22366)",
        4,
        {
            "k": 10, "learning_rate": 1e-4, "eps": 6.25e-10, "warmup": 0, "schedule": "constant",
            "aux_k": 256, "dead_after": 10_000_000, "bias": "geometric_median", "scale_input": "none",
        },
    ),
    "saeuron": Preset(
        "SAeUron (arXiv 2501.18052): BatchTopK",
        16,
        {
            "k": 32, "activation": "batchtopk", "learning_rate": 4e-4, "warmup": 0, "schedule": "linear",
            "clip": 1.0, "dead_after": 10_000_000, "bias": "geometric_median", "scale_input": "none",
            "aux_k": 512,
        },
    ),
    "flux": Preset(
        "the Flux SAEs of arXiv 2505.24360: signed codes on standardised inputs, without the rotation",
        64 / 3,
        {
            "k": 64, "activation": "topk_signed", "learning_rate": 2e-4, "betas": (0.0, 0.99), "eps": 1e-10,
            "warmup": 50, "schedule": "constant", "clip": 10.0, "ema": 0.995, "aux_k": 64,
            "scale_input": "each",
        },
    ),
    "itda": Preset(
        "ITDA (arXiv 2505.17769; on Flux 2505.24360): features are activations that the rest explain badly",
        16,
        {"k": 32, "activation": "pursuit", "scale_input": "none"},
    ),
}  # fmt: skip


def preset(name: str, d_model: int, **options: Any) -> TrainConfig:
    """Return the settings of the recipe `name` for activations of width `d_model`, changed by `options`.

    >>> preset("topk", 1280, k=64).n_features
    20480
    """
    if name not in PRESETS:
        raise RevelioError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    known = {field.name for field in fields(TrainConfig)}
    if unknown := sorted(set(options) - known):
        raise RevelioError(f"Training has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    recipe = PRESETS[name]
    base = {"n_features": max(1, round(recipe.expansion * d_model)), **recipe.settings}
    return replace(TrainConfig(), **{**base, **options})
