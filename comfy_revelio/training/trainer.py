"""Train dictionaries.

The training follows Gao et al., "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093): tied
initialisation, unit-norm decoder rows with the gradient along each row removed, and AuxK (losses.py). Where
other papers differ, TrainConfig has an option.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..dictionary import Dictionary
from ..dictionary.timestep_modulation import HIDDEN
from .batches import Minibatch, Rows, batches, sample_rows
from .checkpoint import TrainingState, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .itda import collect_atoms
from .learning_sae import LearningSAE
from .processes import Processes, join_processes

Progress = Callable[[int, int, dict[str, float]], None]
"""Called as progress(step, steps, metrics) every `report_every` steps; an exception ends the training."""

_SAMPLE = 32768
"""Number of rows from which means and scales are computed."""


# ComfyUI runs nodes in inference mode, which allows no training (execution.py, seen in 0.3.75)
@torch.inference_mode(False)
@torch.enable_grad()
def train(
    rows: Rows,
    config: TrainConfig,
    progress: Progress | None = None,
    *,
    timesteps: Tensor | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
) -> Dictionary:
    """Train a dictionary on activations; return the dictionary on the training device, without statistics.

    timesteps: [N], if rows is a tensor; activations on disk come with their timesteps.
    checkpoint: a file that is written every `checkpoint_every` steps, and when an error or an interrupt ends
        the training early. The same call then resumes and gives the same final result. The file is removed
        when the training is done.
    The same rows, config and device produce the same dictionary, except for rounding errors, with any number
    of processes.
    """
    processes, device = join_processes(config.device)
    if config.activation == "pursuit":
        return collect_atoms(rows, config, device, progress, timesteps)
    sample = sample_rows(rows, timesteps, _SAMPLE, config.batch, config.seed)
    state = _new_state(sample, config, device)
    if checkpoint is not None:
        load_checkpoint(checkpoint, state)

    def save() -> None:
        if checkpoint is not None and processes.first:
            save_checkpoint(checkpoint, state)

    stream = batches(
        rows, timesteps, config.batch, config.seed, start=state.step, processes=processes, device=device
    )
    try:
        while state.step < config.steps:
            loss = _train_step(state, next(stream), processes)
            if state.step == config.steps or state.step % config.report_every == 0:
                processes.minimum(state.sae.silent)
                metrics = state.sae.update_metrics(loss)
                if progress is not None and processes.first:
                    progress(state.step, config.steps, metrics)
            if state.step % checkpoint_every == 0 and state.step < config.steps:
                save()
    except BaseException:
        if state.step < config.steps:
            save()
        raise
    if state.average is not None:
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](state.sae.parameters()), state.average)
    processes.wait()
    if checkpoint is not None and processes.first:
        checkpoint.unlink(missing_ok=True)
    return state.sae.to_dictionary()


def _new_state(sample: Tensor, config: TrainConfig, device: torch.device) -> TrainingState:
    """Return the state before the first step, with a lower learning rate for the timestep modulation."""
    sae = LearningSAE(sample, config, torch.Generator().manual_seed(config.seed)).to(device)
    average = [weight.detach().clone() for weight in sae.parameters()] if config.ema else None
    weights = [weight for name, weight in sae.named_parameters() if not name.startswith("time.")]
    groups: list[dict[str, Any]] = [{"params": weights, "rate_factor": 1.0}]
    if len(sae.time):
        # Adam moves every weight by a full step, and each output of the modulation sums over all hidden units
        groups.append({"params": list(sae.time), "rate_factor": HIDDEN**-0.5})
    optimizer = torch.optim.Adam(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=device.type == "cuda"
    )
    return TrainingState(config, sae, optimizer, average)


def _train_step(state: TrainingState, batch: Minibatch, processes: Processes) -> Tensor:
    """Take one optimiser step on a batch and return the loss."""
    config, sae, optimizer = state.config, state.sae, state.optimizer
    weights = list(sae.parameters())
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate_at(state.step) * group["rate_factor"]
    use_amp = torch.autocast(batch.x.device.type, torch.bfloat16) if config.amp else contextlib.nullcontext()
    with use_amp:
        loss: Tensor = sae(batch.x, batch.timestep)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    processes.average(weight.grad for weight in weights)
    if config.unit_decoder:
        sae.remove_parallel_gradient()
    if config.clip:
        nn.utils.clip_grad_norm_(weights, config.clip)
    optimizer.step()
    if config.unit_decoder:
        sae.normalise_decoder()
    state.step += 1
    if state.average is not None:
        torch._foreach_lerp_(state.average, [weight.detach() for weight in weights], 1 - config.ema)
    return loss
