"""`dev.py demo`: runs the workflows on a real server and measures the bundled model, into `output/`."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from .base import make_base
from .client import Client, Picture, RunError
from .places import ROOT, Places, find_places
from .problem import Problem, exit_code
from .process import call
from .server import cuda_works, running_server

TOTAL_MINUTES = 15.0
"""The whole demo, building the environment included, on two cores."""

EVALUATION_MINUTES = (2.0, 6.0)
"""Least and most time given to the evaluation, which takes as large a sample as fits."""

MOVING = (".mp4", ".webm", ".webp")
"""What is kept as it is and not laid beside others."""

EVALUATED = ("mini_model", "judge", "saes", "steering")
"""What the evaluation adds to the report."""


def demo(places: Places, output: Path, *, started: float) -> int:
    """Fill `output` with the workflows' pictures and `report.json`.

    started: `time.monotonic()` when the command began, to stay within the total time.
    Raises Problem when a workflow or the evaluation fails; the report then holds what was reached, and all
    workflows were tried.
    """
    workflows = [w for w in sorted((ROOT / "workflows").glob("*.json")) if not named_models(w)]
    if not workflows:
        raise Problem(f"There are no workflows of the bundled model in {ROOT / 'workflows'}.")
    output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    base = make_base(places.base("demo"))
    print("Starting ComfyUI ...", flush=True)
    with running_server(places.comfyui, base, places.python, cpu=not cuda_works(places.python)) as server:
        client = Client(server.url)
        report["comfyui_version"] = client.get("/system_stats")["system"]["comfyui_version"]
        report["workflows"] = []
        for workflow in workflows:
            report["workflows"].append(run_workflow(client, workflow, output))
            _write(report, output)
        failed = [entry["error"] for entry in report["workflows"] if entry["status"] != "success"]
        if failed:
            raise Problem(f"{len(failed)} of {len(workflows)} workflows failed; {failed[0]}.")
    report |= _evaluate(places, output, started)
    _write(report, output)
    print(f"\nThe numbers are in {_shown_path(output / 'report.json')}.")
    for line in summary(report):
        print(f"  {line}")
    return 0


def named_models(workflow: Path) -> list[dict[str, str]]:
    """The models that a workflow asks ComfyUI to download: name, url and model folder of each."""
    nodes = json.loads(workflow.read_text(encoding="utf-8"))["nodes"]
    return [model for node in nodes for model in node.get("properties", {}).get("models", [])]


def run_workflow(client: Client, workflow: Path, output: Path) -> dict[str, Any]:
    """Run one workflow, put its pictures into `output` and say what they show; return its report."""
    print(f"\n{workflow.stem}", flush=True)
    graph = client.to_api(json.loads(workflow.read_text(encoding="utf-8")))
    result = client.run(graph)
    error = _blame(result.error) if result.error else ""
    files = []
    for node_id, pictures in _saved(result.images).items():
        name, kind = picture_name(pictures[0].filename), Path(pictures[0].filename).suffix
        if kind in MOVING:
            file = output / f"{name}{kind}"
            file.write_bytes(pictures[0].data)
        else:
            file = output / f"{name}.png"
            beside([picture.data for picture in pictures]).save(file)
        files.append(file.name)
        title = graph[node_id].get("_meta", {}).get("title") or graph[node_id]["class_type"]
        print(f"  {_shown_path(file)}: {title}", flush=True)
    if not files and not error:
        error = "it saved no picture"
    print(f"  failed: {error}" if error else f"  {result.seconds:.0f} s", flush=True)
    return {
        "file": workflow.name,
        "status": "failed" if error else "success",
        "seconds": round(result.seconds, 1),
        "images": files,
    } | ({"error": f"{workflow.name}: {error}"} if error else {})


def _saved(pictures: list[Picture]) -> dict[str, list[Picture]]:
    """The pictures that were saved and not only previewed, by the node that did it."""
    nodes: dict[str, list[Picture]] = {}
    for picture in pictures:
        if picture.type == "output":
            nodes.setdefault(picture.node_id, []).append(picture)
    return nodes


def picture_name(filename: str) -> str:
    """The name that the workflow's author gave: `features` of ComfyUI's `features_00001_.png`."""
    return re.sub(r"_\d+_$", "", Path(filename).stem)


def beside(files: list[bytes], gap: int = 4) -> Image.Image:
    """Pictures of one batch in a row, `gap` white pixels between them."""
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    width = sum(picture.width + gap for picture in pictures) - gap
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def _evaluate(places: Places, output: Path, started: float) -> dict[str, Any]:
    """Measure model, judge, dictionaries and steering on a sample that fits the time left."""
    least, most = EVALUATION_MINUTES
    left = TOTAL_MINUTES - 1 - (time.monotonic() - started) / 60
    minutes = max(least, min(most, left))
    print(f"\nMeasuring the bundled model and its steering, for about {minutes:.0f} minutes ...", flush=True)
    file = output / "evaluation.json"
    file.unlink(missing_ok=True)
    command = [
        places.python,
        "-m",
        "comfy_revelio",
        "evaluate",
        "mini",
        "--minutes",
        f"{minutes:.1f}",
        "--json",
        file,
    ]
    code = call(command, env=places.variables(), cwd=ROOT)
    if code != 0 or not file.is_file():
        raise Problem(
            f"The evaluation of the bundled model failed with exit code {code}; its own words are above."
        )
    measured = json.loads(file.read_text(encoding="utf-8"))
    missing = [key for key in EVALUATED if key not in measured]
    if missing:
        raise Problem(f"The evaluation left out {', '.join(missing)}.")
    file.unlink()
    return dict(measured)


def summary(report: dict[str, Any]) -> list[str]:
    """The report's headline numbers, one a line; numbers that are not there are left out."""
    mini = report.get("mini_model", {})
    lines = []
    if "prompt_accuracy" in mini:
        lines.append(
            f"prompted attributes found in the pictures: {mini['prompt_accuracy']:.1%} of cases "
            f"({mini.get('n_prompts', '?')} prompts)"
        )
    if "accuracy" in report.get("judge", {}):
        lines.append(f"the judge's own accuracy on rendered avatars: {report['judge']['accuracy']:.1%}")
    for sae in report.get("saes", []):
        lines.append(
            f"dictionary at {sae['hook_point']}: {sae['n_features']} features, k {sae['k']}, "
            f"explained variance {sae['explained_variance']:.3f}, dead {sae['dead_share']:.1%}"
        )
    for name, figures in report.get("steering", {}).items():
        if name.startswith("steer_"):
            mean = figures["summary"]
            lines.append(
                f"{name}: removes {mean['removal_relative']:.0%} (costs other attributes "
                f"{mean['removal_cost'] * 100:.1f} points), adds {mean['addition_points'] * 100:.0f} points "
                f"(costs {mean['addition_cost'] * 100:.1f})"
            )
    return lines


def _blame(error: RunError) -> str:
    where = f"node {error.node_id} ({error.node_type}): " if error.node_id else ""
    return where + error.message.rstrip(".")


def _shown_path(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _write(report: dict[str, Any], output: Path) -> None:
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Inside the environment: `python -m devtools.demo`; elapsed: seconds spent on building it."""
    line = argparse.ArgumentParser("devtools.demo", description=__doc__)
    line.add_argument("--elapsed", type=float, default=0.0)
    started = time.monotonic() - line.parse_args().elapsed
    return exit_code(lambda: demo(find_places(), ROOT / "output", started=started))


if __name__ == "__main__":
    sys.exit(main())
