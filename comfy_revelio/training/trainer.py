"""Training a dictionary.

After Gao et al., "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093): tied initialisation,
decoder rows of unit norm with the gradient along them removed, and AuxK, by which dead features learn to
explain what the living ones leave over. What other papers do differently is an option of TrainConfig.
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
from .batches import Rows, batches, sample
from .checkpoint import load_checkpoint, save_checkpoint
from .config import TrainConfig
from .itda import collect
from .learning_sae import LearningSAE
from .processes import Processes, join

Progress = Callable[[int, int, dict[str, float]], None]
"""Called as progress(step, steps, figures) now and then; whatever it raises ends the training."""

_SAMPLE = 32768


@torch.inference_mode(False)  # ComfyUI runs its nodes in inference mode, where nothing can learn
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
    """Train a dictionary on activations; it comes back on the training device, without statistics.

    timesteps: [N], of rows that are a tensor; activations on disk bring theirs.
    checkpoint: a file that is written every `checkpoint_every` steps and when training ends early, by an
        error or an interrupt; the same call then goes on from it and ends where it would have ended.
        It is removed when the training is done.
    The same rows, config and device give the same dictionary up to the device's own rounding, on any number
    of processes. Raises RevelioError for rows that cannot be trained on.
    """
    processes, device = join(config.device)
    if config.activation == "pursuit":
        return collect(rows, config, device, progress, timesteps)
    generator = torch.Generator().manual_seed(config.seed)
    first = sample(rows, timesteps, _SAMPLE, config.batch, config.seed)
    sae = LearningSAE(first, config, generator).to(device)
    weights = list(sae.parameters())
    # A number of the modulation is a sum over its hidden units, each of which takes Adam's whole step.
    slow: dict[str, Any] = {"params": list(sae.time), "factor": HIDDEN**-0.5}
    quick: dict[str, Any] = {
        "params": [weight for name, weight in sae.named_parameters() if not name.startswith("time.")]
    }
    optimizer = torch.optim.Adam(
        [quick, slow] if slow["params"] else [quick],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        fused=device.type == "cuda",
    )
    average = [weight.detach().clone() for weight in weights] if config.ema else None
    step = 0
    if checkpoint is not None:
        step = load_checkpoint(checkpoint, config, sae, optimizer, average)
    stream = batches(
        rows, timesteps, config.batch, config.seed, start=step, processes=processes, device=device
    )
    autocast = torch.autocast(device.type, torch.bfloat16) if config.amp else contextlib.nullcontext()

    def save() -> None:
        if checkpoint is not None and processes.first:
            save_checkpoint(checkpoint, config, sae, optimizer, average, step)

    try:
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step) * group.get("factor", 1.0)
            x, times = next(stream)
            with autocast:
                loss = sae(x, times)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            _finish_step(sae, optimizer, weights, config, processes)
            step += 1
            if average is not None:
                torch._foreach_lerp_(average, [weight.detach() for weight in weights], 1 - config.ema)
            if step == config.steps or step % config.report_every == 0:
                processes.smallest(sae.silent)
                figures = sae.take_stock(loss)
                if progress is not None and processes.first:
                    progress(step, config.steps, figures)
            if step % checkpoint_every == 0 and step < config.steps:
                save()
    except BaseException:
        if step < config.steps:
            save()
        raise
    if average is not None:
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](weights), average)
    processes.wait()
    if checkpoint is not None and processes.first:
        checkpoint.unlink(missing_ok=True)
    return sae.folded()


def _finish_step(
    sae: LearningSAE,
    optimizer: torch.optim.Optimizer,
    weights: list[nn.Parameter],
    config: TrainConfig,
    processes: Processes,
) -> None:
    processes.average(weight.grad for weight in weights)
    if config.unit_decoder:
        sae.remove_parallel_gradient()
    if config.clip:
        nn.utils.clip_grad_norm_(weights, config.clip)
    optimizer.step()
    if config.unit_decoder:
        sae.normalise_decoder()
