"""Measure each training recipe on the bundled model's middle block, for the tables in docs/training.md.

Generates images from captions in the grammar that the model was trained on, saves the activations of all
steps, trains every recipe on nine tenths of the images and measures it on the rest. `--write` puts the tables
into the document: `python3 dev.py run -- python -m benchmarks.bench_presets --write`, half an hour on one
core. Activations and dictionaries stay in --folder; if interrupted, the next run resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from comfy_revelio.cli.main import main as command
from comfy_revelio.cli.options import ProgressBar
from comfy_revelio.errors import RevelioError
from comfy_revelio.training import PRESETS, ShardSet, preset
from comfy_revelio.training.train_on_shards import train_on_shards
from devtools.places import ROOT
from lab.data.attributes import labels_for
from lab.data.captions import caption
from lab.docs.tables import fill, table

HOOK_POINT = "middle_block.1"
DOCUMENT = ROOT / "docs" / "training.md"
BATCH = 1024
FIRST = 2_000_000
"""Number of the first caption; smaller numbers were used to train the model and its SAEs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images and steps, as a check of the script")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/training.md")
    parser.add_argument("--folder", type=Path, default=ROOT / "output" / "presets")
    parser.add_argument("--only", action="append", choices=list(PRESETS), help="a recipe; may be repeated")
    options = parser.parse_args()
    images, steps = (24, 60) if options.quick else (320, 800)
    folder = options.folder / f"{images}x{steps}"
    folder.mkdir(parents=True, exist_ok=True)

    data = harvested(folder, images)
    reports = [trained(data, folder, name, steps) for name in options.only or PRESETS]
    blocks = {"presets": presets_block(reports, ShardSet(data)), "timesteps": timesteps_block(reports)}
    print("\n\n".join(blocks.values()))
    if options.write:
        DOCUMENT.write_text(fill(DOCUMENT.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    return 0


def harvested(folder: Path, images: int) -> Path:
    """Harvest the activations for `images` captions with the pack's command line; return their folder."""
    prompts = folder / "prompts.txt"
    texts = (
        caption(labels_for("model", FIRST + number), np.random.default_rng([15, number])).text
        for number in range(images)
    )
    prompts.write_text("\n".join(texts) + "\n", encoding="utf-8")
    out = folder / "activations"
    if command(["harvest", str(out), "--hook-point", HOOK_POINT, "--prompts", str(prompts), "--json"]):
        raise RevelioError("The harvest failed.")
    return out / HOOK_POINT


def trained(data: Path, folder: Path, name: str, steps: int) -> dict[str, Any]:
    """Return the metrics of one recipe: from an earlier run's file, or else by training it."""
    report = folder / f"{name}.json"
    if report.exists():
        return dict(json.loads(report.read_text(encoding="utf-8")))
    print(f"{name}: training", file=sys.stderr, flush=True)
    config = preset(name, ShardSet(data).d_model, steps=steps, batch=BATCH, device="cpu")
    with ProgressBar("steps") as progress:
        metrics = train_on_shards(data, folder / f"{name}.safetensors", config, progress)
    metrics |= {
        "name": name,
        "k": config.k,
        "n_features": config.n_features,
        "steps": steps,
    }
    report.write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    return metrics


def presets_block(reports: list[dict[str, Any]], shards: ShardSet) -> str:
    head = ["preset", "features", "k", "explained variance", "cosine", "L0", "dead"]
    rows = [
        [
            f"`{metrics['name']}`",
            str(metrics["n_features"]),
            str(metrics["k"]),
            f"{metrics['explained_variance']:.3f}",
            f"{metrics['cosine']:.3f}",
            f"{metrics['l0']:.1f}",
            f"{metrics['dead_share']:.1%}",
        ]
        for metrics in reports
    ]
    return (
        f"{reports[0]['steps']} steps of {BATCH} activations, from {shards.n_rows:,} activations of "
        f"{shards.n_items} images ({HOOK_POINT}, {shards.d_model} wide, all 20 steps). Measured on "
        f"{reports[0]['measured_rows']:,.0f} activations of the tenth of the images that was held out.\n\n"
        + table(head, rows)
    )


def timesteps_block(reports: list[dict[str, Any]]) -> str:
    """Return a table that compares the squared errors of `topk` and `temporal` in each range of timesteps."""
    by_name = {metrics["name"]: metrics["by_timestep"] for metrics in reports}
    if not {"topk", "temporal"} <= set(by_name):
        return ""
    rows = [
        [
            f"{plain['from']:.0f} to {plain['to']:.0f}",
            f"{plain['mse']:.5f}",
            f"{temporal['mse']:.5f}",
            f"{temporal['mse'] / plain['mse'] - 1:+.1%}",
        ]
        for plain, temporal in zip(by_name["topk"], by_name["temporal"], strict=True)
    ]
    return table(["timesteps", "`topk`", "`temporal`", "difference"], rows)


if __name__ == "__main__":
    sys.exit(main())
