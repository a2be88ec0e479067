"""Train the judge on rendered avatars: `python -m lab judge --data DIR --held-out DIR`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.nn import functional as F

from ..data.attributes import ATTRIBUTES
from ..data.dataset import Avatars, load_avatars
from ..evaluate import judge as judge_module
from ..evaluate.judge import Judge, accuracy_by_attribute
from .checkpoint import load_state, save_state, save_weights
from .pace import Pace, learning_rate
from .progress import Progress


def disturb(x: torch.Tensor) -> torch.Tensor:
    """Shift, blur and recolour images slightly and add noise: the judge must also read imperfect images.

    x: [B, 3, H, W] in 0..1. Shift and blur are drawn once per batch, colour and noise once per image.
    """
    dy, dx = torch.randint(-3, 4, (2,)).tolist()
    x = torch.roll(F.pad(x, (3, 3, 3, 3), mode="replicate"), (dy, dx), (2, 3))[:, :, 3:-3, 3:-3]
    kind = int(torch.randint(0, 4, ()))
    if kind == 1:
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    elif kind == 2:
        half = F.interpolate(x, scale_factor=0.6, mode="bilinear", antialias=True)
        x = F.interpolate(half, size=x.shape[-2:], mode="bilinear")
    b = x.shape[0]
    gain = 1 + 0.06 * torch.randn(b, 3, 1, 1, device=x.device)
    lift = 0.03 * torch.randn(b, 3, 1, 1, device=x.device)
    noise = 0.04 * torch.rand(b, 1, 1, 1, device=x.device) * torch.randn_like(x)
    return (x * gain + lift + noise).clamp(0, 1)


def loss_of(logits: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    parts = [
        F.cross_entropy(logits[name], labels[:, i], ignore_index=-1, label_smoothing=0.02)
        for i, name in enumerate(ATTRIBUTES)
    ]
    return torch.stack(parts).nan_to_num().sum()


def measure(judge: Judge, avatars: Avatars) -> dict[str, float]:
    """Return the judge's accuracy per attribute, and the mean, on undisturbed renders."""
    found = judge.label(avatars.images.permute(0, 2, 3, 1).float() / 255)
    result = accuracy_by_attribute(found, avatars.labels.cpu())
    return {**result, "mean": sum(result.values()) / len(result)}


def train(
    data: Path,
    held_out: Path,
    *,
    steps: int = 6000,
    minutes: float | None = None,
    batch: int = 64,
    lr: float = 2e-3,
    device: str = "cpu",
    out: Path = judge_module.JUDGE_FILE,
    width: int = 24,
    go_on: bool = False,
) -> dict[str, float]:
    """Train the judge, save it to `out`, return its accuracy on held-out renders; a killed run resumes.

    go_on: start from the judge at `out` instead of from scratch.
    """
    torch.manual_seed(0)
    avatars, check = load_avatars(data, "judge"), load_avatars(held_out, "check")
    images, labels = avatars.images.to(device), avatars.labels.to(device)
    judge = (judge_module.load_judge(out).requires_grad_(True) if go_on else Judge(width)).to(device)
    width = judge.width
    optimizer = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=0.02)
    state_file = out.with_suffix(".state")
    start = 0
    if (state := load_state(state_file, device)) is not None:
        judge.load_state_dict(state["judge"])
        optimizer.load_state_dict(state["optimizer"])
        start, steps, minutes = state["step"], state["steps"], None
    torch.manual_seed(start)  # so that a resumed run does not draw the same rows again
    pace, progress = Pace(steps, minutes, device, start=start), Progress("judge", steps, start=start)
    judge.train()
    step = start
    while step < pace.steps:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(lr, step, pace.steps, hold=0.2)
        rows = torch.randint(len(images), (batch,), device=device)
        x = disturb(images[rows].float() / 255)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            loss = loss_of(judge(x), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if pace.tick(step):
            progress.total = pace.steps
        if progress.due(step):
            progress.line(step, loss=loss.item())
        if step % 2000 == 0 and step < pace.steps:
            save_state(
                {
                    "judge": judge.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "steps": pace.steps,
                },
                state_file,
            )
    judge.eval()
    accuracy = measure(judge, check)
    settings = {"width": width, "values": judge.values, "accuracy": accuracy, "n_held_out": len(check.images)}
    save_weights(judge.state_dict(), out, metadata={"config": json.dumps(settings)})
    state_file.unlink(missing_ok=True)
    return accuracy
