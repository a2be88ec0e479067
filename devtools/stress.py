"""`python -m devtools.stress`: run five branches of one model in one graph, many times on a real server.

The branches: plain, recorded, steered, with a LoRA, steered with a LoRA. Seeds and the order of the branches
vary, and some runs are interrupted halfway. Every image must equal the image that its branch makes alone,
and memory must not grow.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .base import make_base
from .client import Client, Event, Prompt, RunResult
from .places import find_places
from .problem import Problem, exit_code
from .server import running_server

BRANCHES = ("plain", "recorded", "steered", "lora", "both")
LORA = "stress.safetensors"
SAE = "revelio_mini_up2.safetensors"
WORDS = "a flat cartoon portrait of a smiling person with brown hair and glasses, blue background"
SETTLED = 20
"""The number of the run whose memory is compared with the memory after the last run."""
MOST_GROWTH = 0.05


def write_lora(folder: Path) -> None:
    """Write a LoRA for one attention layer of Revelio Mini; its random weights have a visible effect."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v"
    weights = {
        f"{key}.lora_up.weight": torch.randn(192, 4, generator=generator),
        f"{key}.lora_down.weight": torch.randn(4, 192, generator=generator),
    }
    save_file(weights, folder / LORA)


def graph(branches: Sequence[str], seed: int, mark: int, *, steps: int) -> Prompt:
    """Return a graph of the branches in this order. mark: a new number makes ComfyUI compute all nodes."""
    nodes: Prompt = {
        "mini": _node("RevelioMiniModel"),
        "sae": _node("RevelioLoadSAE", sae=SAE, hook_point=""),
        # trailing spaces add no tokens, but they change the input, so that ComfyUI's cache is not used
        "positive": _node("CLIPTextEncode", clip=["mini", 1], text=WORDS + " " * mark),
        "negative": _node("CLIPTextEncode", clip=["mini", 1], text=""),
        "empty": _node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "with lora": _node("LoraLoaderModelOnly", model=["mini", 0], lora_name=LORA, strength_model=1.0),
        "record": _node("RevelioRecord", model=["mini", 0], sae=["sae", 0], hook_point=""),
        "steer": _steer(["mini", 0]),
        "steer lora": _steer(["with lora", 0]),
    }
    models = {"plain": "mini", "recorded": "record", "steered": "steer", "lora": "with lora"}
    used = {"mini", "positive", "negative", "empty"}
    for name in branches:
        model = models.get(name, "steer lora")
        used |= {model, *_needed(nodes, model)}
        nodes[f"{name} sampler"] = _node(
            "KSampler", model=[model, 0], seed=seed, steps=steps, cfg=3.0, sampler_name="euler",
            scheduler="normal", denoise=1.0, positive=["positive", 0], negative=["negative", 0],
            latent_image=["empty", 0],
        )  # fmt: skip
        latent = f"{name} sampler"
        if name == "recorded":
            latent = "collect"
            nodes[latent] = _node("RevelioCollect", latent=[f"{name} sampler", 0], recorder=["record", 1])
        nodes[f"{name} decode"] = _node("VAEDecode", samples=[latent, 0], vae=["mini", 2])
        nodes[f"{name} image"] = _node("PreviewImage", images=[f"{name} decode", 0])
        used |= {latent, *(f"{name} {part}" for part in ("sampler", "decode", "image"))}
    return {key: entry for key, entry in nodes.items() if key in used}


def stress(
    client: Client,
    pid: int,
    *,
    runs: int,
    seeds: int = 4,
    steps: int = 4,
    interrupted: float = 0.2,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run the graph `runs` times, compare every image, and return what happened.

    seeds: how many seeds to use; each branch first runs alone once per seed. interrupted: the share of runs
    that are stopped halfway. pid: the server's process, whose memory is watched.
    Raises Problem if a run fails for a reason other than the interrupt.
    """
    dice = random.Random(0)
    marks = iter(range(1, 10**6))
    alone = {
        (name, seed): _images(_run(client, graph([name], seed, next(marks), steps=steps)), [name])[name]
        for seed in range(seeds)
        for name in BRANCHES
    }
    for seed in range(seeds):
        if len({alone[name, seed] for name in BRANCHES}) != len(BRANCHES) - 1:
            raise Problem(
                f"At seed {seed} the branches do not differ as they should, so that nothing would be tested."
            )
    report: dict[str, Any] = {
        "runs": runs,
        "compared": 0,
        "interrupted": 0,
        "different": [],
        "memory_mib": [],
    }
    for number in range(1, runs + 1):
        order = dice.sample(BRANCHES, len(BRANCHES))
        seed = dice.randrange(seeds)
        prompt = graph(order, seed, next(marks), steps=steps)
        if dice.random() < interrupted:
            report["interrupted"] += _interrupt(client, prompt, dice.randrange(1, len(order) * steps))
        else:
            found = _images(_run(client, prompt), order)
            report["compared"] += len(found)
            report["different"] += [
                f"run {number}, {name}" for name in order if found[name] != alone[name, seed]
            ]
        report["memory_mib"].append(round(resident_mib(pid), 1))
        if number % 20 == 0:
            say(f"{number} runs, {report['memory_mib'][-1]} MiB, {len(report['different'])} differ")
    settled = report["memory_mib"][min(SETTLED, runs) - 1]
    report["memory_growth"] = report["memory_mib"][-1] / settled - 1
    return report


def resident_mib(pid: int) -> float:
    """Return a process's resident memory in MiB, on Linux; elsewhere 1, so that it never seems to grow."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return 1.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def _steer(model: list[Any]) -> dict[str, Any]:
    return _node(
        "RevelioSteerFeatures", model=model, sae=["sae", 0], features="glasses", strength=-3.0,
        start_percent=0.0, end_percent=1.0, role="cond", place="usual", mode="push",
    )  # fmt: skip


def _needed(nodes: Prompt, name: str) -> set[str]:
    """Return the names of all nodes that the node `name` depends on."""
    direct = {value[0] for value in nodes[name]["inputs"].values() if isinstance(value, list)}
    return direct.union(*(_needed(nodes, other) for other in direct)) if direct else set()


def _run(client: Client, prompt: Prompt) -> RunResult:
    result = client.run(prompt)
    if result.error is not None:
        raise Problem(f"A run failed at node {result.error.node_id}: {result.error.message}.")
    return result


def _interrupt(client: Client, prompt: Prompt, after: int) -> int:
    """Run a graph and interrupt it after `after` sampling steps; return 1 if that stopped it, else 0."""
    seen: list[int] = []

    def stop(event: Event) -> None:
        if event.type == "progress" and str(event.data.get("node", "")).endswith("sampler"):
            seen.append(1)
            if len(seen) == after:
                client.interrupt()

    result = client.run(prompt, on_event=stop)
    if result.error is not None and result.error.type != "interrupted":
        raise Problem(f"An interrupted run failed at node {result.error.node_id}: {result.error.message}.")
    return int(result.error is not None)


def _images(result: RunResult, names: Sequence[str]) -> dict[str, bytes]:
    """Return the pixels of each branch's image; raise Problem if a branch was not sampled in this run."""
    found = {}
    for name in names:
        files = result.images_of(f"{name} image")
        if not files or not result.ran(f"{name} sampler"):
            raise Problem(f"The branch {name} was not sampled.")
        found[name] = b"".join(Image.open(io.BytesIO(file)).convert("RGB").tobytes() for file in files)
    return found


def _main(runs: int, out: Path | None) -> int:
    places = find_places()
    base = make_base(places.base("stress"))
    write_lora(base / "models" / "loras")
    with running_server(places.comfyui, base, places.python) as server:
        report = stress(Client(server.url), server.process.pid, runs=runs)
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        f"{report['compared']} images in {runs} runs, {report['interrupted']} of them interrupted: "
        f"{len(report['different'])} differ from the image of their branch alone; memory grew by "
        f"{report['memory_growth']:.1%} since run {min(SETTLED, runs)}."
    )
    return int(bool(report["different"]) or report["memory_growth"] > MOST_GROWTH)


def main() -> int:
    line = argparse.ArgumentParser("devtools.stress", description=__doc__.splitlines()[0])
    line.add_argument("--runs", type=int, default=200)
    line.add_argument("--json", type=Path, help="file for all metrics")
    options = line.parse_args()
    return exit_code(lambda: _main(options.runs, options.json))


if __name__ == "__main__":
    sys.exit(main())
