"""A harvest of the bundled model that is killed again and again ends where one that was left alone ends."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from comfy_revelio.training import ShardSet
from comfy_revelio.training.shards.manifest import MANIFEST, read_manifest

ROOT = Path(__file__).resolve().parents[3]
KILLS = int(os.environ.get("REVELIO_KILLS", "2"))
PER_KILL = 16
"""Pictures that are drawn before the next kill, at most."""
EVERY, BATCH = 4, 2
HOOKS = ("middle_block.1", "output_blocks.3.1")


def command(prompts: Path, out: Path) -> list[str]:
    hooks = [word for name in HOOKS for word in ("--hook-point", name)]
    settings = ["--steps", "3", "--size", "64x96", "--batch", str(BATCH), "--checkpoint-every", str(EVERY)]
    return ["comfy_revelio", "harvest", str(out), "--prompts", str(prompts), *hooks, *settings]


def start(comfyui: Path, prompts: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *command(prompts, out)],
        cwd=ROOT,
        env={**os.environ, "COMFYUI_PATH": str(comfyui)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def together(comfyui: Path, prompts: Path, out: Path) -> None:
    """The same by two processes, as accelerate starts them."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines",
              "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m"]  # fmt: skip
    subprocess.run(
        [sys.executable, *launch, *command(prompts, out)],
        cwd=ROOT,
        env={**os.environ, "COMFYUI_PATH": str(comfyui), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )


def reached(child: subprocess.Popen[str], count: int = 0) -> int:
    """How many items are done when these are, or when the work begins; past what libraries print."""
    assert child.stderr is not None
    return next(done for line in child.stderr if (done := told(line)) is not None and done >= count)


def told(line: str) -> int | None:
    """The items in a line of a progress bar, as in " 12%|█▎   | 4/32 [00:01<00:09,  2.90 items/s]"."""
    found = re.search(r" (\d+)/\d+ \[.* items", line)
    return int(found[1]) if found else None


def on_disk(out: Path) -> int:
    """Items that every hook point has; each folder is checked on the way."""
    folders = [out / name for name in HOOKS]
    return min(ShardSet(folder).n_items if (folder / MANIFEST).exists() else 0 for folder in folders)


def test_kills_cost_at_most_the_pictures_since_the_last_shard(comfyui: Path, tmp_path: Path) -> None:
    prompts, alone, out = tmp_path / "prompts.txt", tmp_path / "alone", tmp_path / "killed"
    count = KILLS * PER_KILL
    prompts.write_text("\n".join(f"a pixel art portrait, {n % 7} hats" for n in range(count)))
    child = start(comfyui, prompts, alone)
    assert reached(child) == 0
    began = time.monotonic()
    assert child.stderr is not None
    assert [number for line in child.stderr if (number := told(line)) is not None][-1] == count
    assert child.wait() == 0
    seconds = (time.monotonic() - began) / count

    rng = random.Random(0)
    kept = 0
    for _ in range(KILLS):
        child = start(comfyui, prompts, out)
        first = reached(child)
        assert first >= kept  # it resumed and did not start again
        # the end of a line comes with the next one, so that this reads one batch late
        done = reached(child, first + rng.randrange(1, PER_KILL - 3 * BATCH))
        time.sleep(rng.random() * BATCH * seconds)  # anywhere within a batch, however busy the machine
        child.kill()
        assert child.stderr is not None
        done = max([done, *(number for line in child.stderr if (number := told(line)) is not None)])
        assert child.wait() != 0
        kept = on_disk(out)
        assert done - EVERY < kept <= done + BATCH
    child = start(comfyui, prompts, out)
    assert child.communicate()[1] and child.returncode == 0

    for name in HOOKS:
        assert read_manifest(out / name) == read_manifest(alone / name)
        files = {file.name: file.read_bytes() for file in (alone / name).iterdir()}
        assert {file.name: file.read_bytes() for file in (out / name).iterdir()} == files
        assert ShardSet(out / name).n_items == count


def test_two_processes_harvest_what_one_does(comfyui: Path, tmp_path: Path) -> None:
    prompts, alone, out = tmp_path / "prompts.txt", tmp_path / "alone", tmp_path / "together"
    prompts.write_text("\n".join(f"a pixel art portrait, {n} hats" for n in range(7)))
    child = start(comfyui, prompts, alone)
    assert child.communicate()[1] and child.returncode == 0
    together(comfyui, prompts, out)
    assert (out / "prompts.json").read_text() == (alone / "prompts.json").read_text()
    assert not list(out.glob("part-*"))
    shares = [list(shard.items) for shard in read_manifest(out / HOOKS[0]).shards]
    assert shares == [[0, 2, 4, 6], [1, 3, 5]], "it was not two processes"
    for name in HOOKS:
        one, two = (ShardSet(folder / name).split(0.0)[0].all() for folder in (alone, out))
        assert read_manifest(alone / name).source == read_manifest(out / name).source
        order = torch.sort(two.item, stable=True).indices
        assert torch.equal(two.item[order], one.item) and torch.equal(two.timestep[order], one.timestep)
        # other pictures in a batch change the last digits of a sum
        assert torch.allclose(two.x[order], one.x, rtol=1e-2, atol=1e-2)
