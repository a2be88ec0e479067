"""The state of an unfinished training, saved in one file that is replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RevelioError
from ..files import tensor_file
from .config import TrainConfig
from .learning_sae import LearningSAE

_FORMAT = "revelio-training"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class TrainingState:
    """The settings of a training and everything that changes while it runs."""

    config: TrainConfig
    sae: LearningSAE
    optimizer: torch.optim.Optimizer
    average: list[Tensor] | None
    """Moving averages of the weights, in the order of `sae.parameters()`; None if config.ema is 0."""
    step: int = 0
    """Number of completed steps."""


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write the weights, running statistics, Adam moments and moving average to a file."""
    tensors: dict[str, Tensor] = {f"sae.{name}": tensor for name, tensor in state.sae.state_dict().items()}
    for number, weight in enumerate(state.sae.parameters()):
        moments = state.optimizer.state.get(weight, {})
        tensors |= {
            f"adam.{number}.{name}": torch.as_tensor(moments[name]) for name in _MOMENTS if name in moments
        }
        if state.average is not None:
            tensors[f"average.{number}"] = state.average[number]
    table = {"step": state.step, "revive": state.sae.revive, "config": _result_settings(state.config)}
    tensor_file.write(path, tensors, {"format": _FORMAT, "state": json.dumps(table)})


def load_checkpoint(path: Path, state: TrainingState) -> None:
    """Restore `state` in place from a checkpoint file; do nothing if the file does not exist.

    Raises RevelioError when the checkpoint was made with other settings or does not fit the activations.
    """
    if not path.exists():
        return
    header = tensor_file.read_header(path)
    table = tensor_file.parse_json(path, header.metadata.get("state", "{}"), "state")
    if header.metadata.get("format") != _FORMAT or not isinstance(table, dict):
        raise RevelioError(f"{path} is not a training checkpoint; move it away to start over.")
    before, now = table.get("config"), _result_settings(state.config)
    if not isinstance(before, dict) or (differing := [name for name in now if before.get(name) != now[name]]):
        what = ", ".join(differing[:4]) if isinstance(before, dict) else "everything"
        raise RevelioError(
            f"{path} is the checkpoint of a training with other settings ({what}); give the same settings to "
            "resume, or move it away to start over."
        )
    tensors = tensor_file.read_tensors(path, list(header.tensors))
    try:
        _restore(state, tensors)
        state.sae.revive, state.step = bool(table["revive"]), int(table["step"])
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise RevelioError(f"{path} does not fit these activations; move it away to start over.") from None


def _restore(state: TrainingState, tensors: dict[str, Tensor]) -> None:
    saved = {name.removeprefix("sae."): t for name, t in tensors.items() if name.startswith("sae.")}
    state.sae.load_state_dict(saved)
    is_fused = state.optimizer.defaults.get("fused")
    for number, weight in enumerate(state.sae.parameters()):
        moments = {name: tensors[f"adam.{number}.{name}"] for name in _MOMENTS}
        # Adam keeps its step counter on the CPU, except in its fused variant
        state.optimizer.state[weight] = {
            name: t if name == "step" and not is_fused else t.to(weight.device) for name, t in moments.items()
        }
        if state.average is not None:
            state.average[number].copy_(tensors[f"average.{number}"])


def _result_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that affect the result, as they look after being saved to and read from JSON."""
    settings = asdict(config)
    for name in ("device", "report_every"):
        del settings[name]
    return dict(json.loads(json.dumps(settings)))
