"""Run the whole demo: start ComfyUI, run the workflows, measure, and fill the output folder."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base import make_base
from ..chromium import find_chromium
from ..client import Client, Prompt
from ..places import ROOT, Places
from ..problem import Problem
from ..server import cuda_works, running_server
from . import explorer, metrics
from .estimate import Estimate, Step, duration
from .page import Context, write_page
from .progress import Progress
from .workflows import Outcome, bundled_workflows, run_workflow

SHORT = ("01_see_features", "02_steer_a_feature", "03_steer_a_concept", explorer.WORKFLOW)
"""The workflows of the main job, in order."""

SECONDS = {
    "01_see_features": 3.2,
    "02_steer_a_feature": 17.0,
    "03_steer_a_concept": 8.8,
    "04_train_your_own_sae": 153.0,
    "05_explore_and_steer": 20.0,
    "06_word_maps": 1.9,
    "07_features_over_time": 3.1,
    "08_compare_two_prompts": 3.4,
    "09_find_a_concept": 20.0,
    "10_sweep_a_strength": 13.5,
    "11_look_at_a_picture": 1.7,
    "14_paint_to_steer": 3.0,
    "15_remove_everywhere": 23.5,
    "16_compare_two_models": 3.5,
}
"""Seconds per workflow, run in this order on one server with 2 cores to itself; 05 includes the browser."""

UNKNOWN_SECONDS = 5.0
"""The seconds assumed for a workflow that SECONDS lacks."""
STARTING, CALIBRATING, MEASURING = "Starting ComfyUI", "Measuring the speed of this machine", "Measuring"
START_SECONDS, CALIBRATION_SECONDS = 8.0, 3.5
MINUTES, MINUTES_OF_ALL = 0.8, 4.0
"""How long the evaluation may take in the short and in the full demo; it measures as many prompts as fit."""

NO_BROWSER = "The Explorer is not shown: that takes Chromium or Chrome on the PATH."


def demo(places: Places, output: Path, *, everything: bool = False) -> int:
    """Fill the folder `output` with images, `report.json` and `index.html`.

    everything: run all workflows of the bundled model, and measure steering on several concepts.
    Raises Problem if a workflow or the evaluation fails, but only after all workflows were tried; page and
    report then contain the results so far.
    """
    chromium = find_chromium()
    workflows = bundled_workflows()
    if not everything:
        workflows = [w for w in workflows if w.stem in SHORT and (w.stem != explorer.WORKFLOW or chromium)]
    if not workflows:
        raise Problem(f"There are no workflows of the bundled model in {ROOT / 'workflows'}.")
    output.mkdir(parents=True, exist_ok=True)
    minutes = MINUTES_OF_ALL if everything else MINUTES
    estimate = Estimate(steps(workflows, minutes, everything=everything))
    outcomes: list[Outcome] = []
    report: dict[str, Any] = {}
    cpu = not cuda_works(places.python)
    device = "the CPU" if cpu else "the GPU"
    notes = [] if chromium else [NO_BROWSER]
    context = Context(f"{datetime.datetime.now():%Y-%m-%d %H:%M}", device, notes)
    with Progress(estimate) as progress:
        if not everything:
            progress.say(f"The main job on {device}: about {duration(estimate.left())}.")
        progress.begin(STARTING)
        base = make_base(places.base("demo"))
        with running_server(places.comfyui, base, places.python, cpu=cpu) as server:
            client = Client(server.url)
            report["comfyui_version"] = client.get("/system_stats")["system"]["comfyui_version"]
            if everything:
                calibrate(client, progress)
                progress.say(
                    f"{len(workflows)} workflows and {minutes:g} minutes of measuring on {device}: "
                    f"about {duration(estimate.left())} by this machine's speed."
                )
            for note in notes:
                progress.say(note)
            for workflow in workflows:
                progress.begin(workflow.stem)
                outcomes.append(_run(client, workflow, output, chromium, progress))
                report["workflows"] = [outcome.entry() for outcome in outcomes]
                _write(report, output)
        failed = [entry["error"] for entry in report["workflows"] if entry["status"] != "success"]
        if failed:
            write_page(output, outcomes, report, context)
            raise Problem(f"{len(failed)} of {len(workflows)} workflows failed; {failed[0]}.")
        write_page(output, outcomes, report, context)  # for the case that measuring fails
        progress.begin(MEASURING)
        report |= measured(places, output, outcomes, minutes, everything=everything)
        _write(report, output)
        file = write_page(output, outcomes, report, context)
        estimate.end()
    print(f"\nOpen {_shown(file)} in a browser: all images and metrics, with what they show.")
    print(f"The numbers are in {_shown(output / 'report.json')}.")
    for line in metrics.summary_lines(report):
        print(f"  {line}")
    if "note" in report:
        print(f"  {metrics.FEW}")
    return 0


def steps(workflows: Sequence[Path], minutes: float, *, everything: bool) -> list[Step]:
    """Return the steps of the demo, each with the seconds it takes."""
    return [
        Step(STARTING, START_SECONDS, scales=False),
        *([Step(CALIBRATING, CALIBRATION_SECONDS)] if everything else []),
        *(Step(workflow.stem, SECONDS.get(workflow.stem, UNKNOWN_SECONDS)) for workflow in workflows),
        Step(MEASURING, minutes * 60, scales=False),
    ]


def calibrate(client: Client, progress: Progress) -> None:
    """Time the sampling of four images, which is typical work, after a first run that warms up the model."""
    client.run(_four_images(seed=1))
    progress.begin(CALIBRATING)
    result = client.run(_four_images(seed=2))
    if result.error:
        raise Problem(f"The bundled model does not run: {result.error.message}")
    progress.estimate.end()


def _four_images(seed: int) -> Prompt:
    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "1": node("RevelioMiniModel"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a portrait of a smiling person"),
        "3": node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": node("EmptyLatentImage", width=128, height=128, batch_size=4),
        "5": node(
            "KSampler", model=["1", 0], positive=["2", 0], negative=["3", 0], latent_image=["4", 0],
            seed=seed, steps=20, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("PreviewImage", images=["6", 0]),
    }  # fmt: skip


def measured(
    places: Places, output: Path, outcomes: Sequence[Outcome], minutes: float, *, everything: bool
) -> dict[str, Any]:
    """Run the evaluation and the judge; return their entries for the report."""
    found = metrics.evaluate(places, output, minutes, steering=everything)
    if metrics.STEERING in found:
        return found
    images = {name: files for outcome in outcomes for name, files in outcome.images.items()}
    return found | {metrics.STEERING: metrics.judge_images(images), "note": metrics.NOTE}


def _run(client: Client, workflow: Path, output: Path, chromium: Path | None, progress: Progress) -> Outcome:
    """Run one workflow and print what its images show."""
    if workflow.stem == explorer.WORKFLOW and chromium is not None:
        try:
            outcome = explorer.explore(client, workflow, chromium, output)
        except explorer.NoBrowser as problem:
            progress.say(f"The Explorer is not shown, as {chromium} does not start: {problem}.")
            outcome = run_workflow(client, workflow, output)
    else:
        outcome = run_workflow(client, workflow, output)
    progress.say(f"\n{workflow.stem}, {outcome.seconds:.0f} s")
    for name, file in outcome.files.items():
        first = outcome.caption(name).partition(". ")[0].rstrip(".")
        progress.say(f"  {_shown(file)}: {first}")
    if outcome.error:
        progress.say(f"  failed: {outcome.error}")
    return outcome


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _write(report: Mapping[str, Any], output: Path) -> None:
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
