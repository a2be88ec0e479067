"""A training that is killed again and again ends where one that was left alone ends."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from comfy_revelio.dictionary import load_dictionary
from comfy_revelio.training import ShardWriter
from comfy_revelio.training.shards import Source

ROOT = Path(__file__).resolve().parents[3]
KILLS = int(os.environ.get("REVELIO_KILLS", "2"))


def command(data: Path, out: Path) -> list[str]:
    settings = [
        "--n-features",
        "64",
        "--k",
        "4",
        "--steps",
        str(800 * KILLS),
        "--batch",
        "256",
        "--device",
        "cpu",
    ]
    return [
        sys.executable, "-m", "comfy_revelio", "train", str(data), str(out), *settings,
        "--checkpoint-every", "40", "--option", "report_every=20",
    ]  # fmt: skip


def steps_done(progress: str) -> list[int]:
    """The steps that a progress bar has shown, as in "  5%|▌   | 40/800 [00:01<00:19]"."""
    return [int(step) for step in re.findall(r" (\d+)/\d+ \[", progress)]


def test_kills_cost_at_most_the_work_since_the_last_checkpoint(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    with ShardWriter(
        tmp_path / "rows", Source("tiny", "middle_block.1", "output", 16), dtype=torch.float32
    ) as w:
        for item in range(40):
            w.add(item, 100.0 + item, torch.randn(50, 16, generator=g))
            w.finish_item(item)
    alone = tmp_path / "alone.safetensors"
    subprocess.run(command(tmp_path / "rows", alone), cwd=ROOT, check=True, capture_output=True, timeout=300)
    out = tmp_path / "killed.safetensors"
    state = tmp_path / "killed.safetensors.training"
    rng = random.Random(0)
    reached = 0
    for _ in range(KILLS):
        child = subprocess.Popen(command(tmp_path / "rows", out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        first = next(step for line in child.stderr for step in steps_done(line))
        assert first >= reached  # it resumed and did not start again
        time.sleep(rng.random() * 0.5)
        child.send_signal(signal.SIGKILL)
        last = max([first, *steps_done(child.stderr.read())])
        child.wait()
        assert not out.exists()
        assert state.exists() or last < 40
        reached = max(0, last - 40 - 20) // 20 * 20
    subprocess.run(command(tmp_path / "rows", out), cwd=ROOT, check=True, capture_output=True, timeout=300)
    assert not state.exists()
    assert not list(tmp_path.glob(".*.part"))
    one, other = load_dictionary(alone), load_dictionary(out)
    assert torch.equal(one.W_dec, other.W_dec)
    assert one.metrics == other.metrics
