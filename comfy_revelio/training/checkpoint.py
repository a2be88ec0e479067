"""The state of an unfinished training, as one file that is always whole."""

from __future__ import annotations

import json
from dataclasses import asdict
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


def save_checkpoint(
    path: Path,
    config: TrainConfig,
    sae: LearningSAE,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor] | None,
    step: int,
) -> None:
    """Write weights, running state, the optimiser's moments and the moving average after `step` steps."""
    tensors: dict[str, Tensor] = {f"sae.{name}": tensor for name, tensor in sae.state_dict().items()}
    for number, weight in enumerate(sae.parameters()):
        moments = optimizer.state.get(weight, {})
        tensors |= {
            f"adam.{number}.{name}": torch.as_tensor(moments[name]) for name in _MOMENTS if name in moments
        }
        if average is not None:
            tensors[f"average.{number}"] = average[number]
    state = {"step": step, "revive": sae.revive, "config": _plain(config)}
    tensor_file.write(path, tensors, {"format": _FORMAT, "state": json.dumps(state)})


def load_checkpoint(
    path: Path,
    config: TrainConfig,
    sae: LearningSAE,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor] | None,
) -> int:
    """Put everything back and return how many steps were done; 0 where there is no file.

    Raises RevelioError when the file belongs to another training or does not fit.
    """
    if not path.exists():
        return 0
    header = tensor_file.read_header(path)
    state = tensor_file.parse_json(path, header.metadata.get("state", "{}"), "state")
    if header.metadata.get("format") != _FORMAT or not isinstance(state, dict):
        raise RevelioError(f"{path} is no state of a training; move it away to start anew.")
    before, now = state.get("config"), _plain(config)
    if not isinstance(before, dict) or (differing := [name for name in now if before.get(name) != now[name]]):
        what = ", ".join(differing[:4]) if isinstance(before, dict) else "everything"
        raise RevelioError(
            f"{path} is the state of a training with other settings ({what}); give the same settings to go "
            "on, or move it away to start anew."
        )
    tensors = tensor_file.read_tensors(path, list(header.tensors))
    try:
        sae.load_state_dict({n.removeprefix("sae."): t for n, t in tensors.items() if n.startswith("sae.")})
        for number, weight in enumerate(sae.parameters()):
            moments = {name: tensors[f"adam.{number}.{name}"] for name in _MOMENTS}
            optimizer.state[weight] = {
                name: t if name == "step" and not optimizer.defaults.get("fused") else t.to(weight.device)
                for name, t in moments.items()
            }
            if average is not None:
                average[number].copy_(tensors[f"average.{number}"])
        sae.revive = bool(state["revive"])
        return int(state["step"])
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise RevelioError(f"{path} does not fit these activations; move it away to start anew.") from None


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what comes out, as JSON gives them back."""
    settings = asdict(config)
    for name in ("device", "report_every"):
        del settings[name]
    return dict(json.loads(json.dumps(settings)))
