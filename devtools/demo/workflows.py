"""Run the workflows of the bundled model on a server and keep the images that they save."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..client import Client, OutputImage, RunError
from ..places import ROOT
from .captions import CAPTIONS

MOVING = (".mp4", ".webm", ".webp")
"""Files of these types are saved unchanged; other images of a batch are joined into one row."""


@dataclass
class Outcome:
    """The result of running one workflow."""

    workflow: Path
    seconds: float = 0.0
    error: str = ""
    """Empty after a success, else a sentence without its full stop."""
    files: dict[str, Path] = field(default_factory=dict)
    """The file of each saved image, by the name that the workflow gives to the image."""
    titles: dict[str, str] = field(default_factory=dict)
    """The title of the node that saved each image, by the image's name."""
    images: dict[str, list[bytes]] = field(default_factory=dict, repr=False)
    """For each batch name, the images as PNG files."""

    def caption(self, name: str) -> str:
        """Describe what the image called `name` shows."""
        return CAPTIONS.get(name) or self.titles.get(name) or name

    def entry(self) -> dict[str, Any]:
        """Return the workflow's entry in the report."""
        return {
            "file": self.workflow.name,
            "status": "failed" if self.error else "success",
            "seconds": round(self.seconds, 1),
            "images": [file.name for file in self.files.values()],
        } | ({"error": f"{self.workflow.name}: {self.error}"} if self.error else {})


def bundled_workflows() -> list[Path]:
    """Return the workflows that need no model besides the bundled one, in order."""
    return [file for file in sorted((ROOT / "workflows").glob("*.json")) if not named_models(file)]


def named_models(workflow: Path) -> list[dict[str, str]]:
    """Return the name, url and folder of each model that a workflow asks ComfyUI to download."""
    return [model for node in _nodes(workflow) for model in node.get("properties", {}).get("models", [])]


def note_of(workflow: Path) -> tuple[str, str]:
    """Return a workflow's first note: its heading and first paragraph in Markdown, or two empty texts."""
    for node in _nodes(workflow):
        if node["type"] == "MarkdownNote":
            heading, *rest = str(node["widgets_values"][0]).split("\n\n")
            return heading.removeprefix("#").strip(), rest[0].strip() if rest else ""
    return "", ""


def run_workflow(client: Client, workflow: Path, output: Path) -> Outcome:
    """Run one workflow and put the images that it saves into the folder `output`."""
    graph = client.to_api(json.loads(workflow.read_text(encoding="utf-8")))
    result = client.run(graph)
    outcome = Outcome(workflow, result.seconds, _blame(result.error) if result.error else "")
    keep(result.images, graph, output, outcome)
    if not outcome.files and not outcome.error:
        outcome.error = "it saved no image"
    return outcome


def keep(images: Sequence[OutputImage], graph: dict[str, Any], output: Path, outcome: Outcome) -> None:
    """Write images to the folder `output` and enter them in `outcome`; a batch is joined into one row."""
    for node_id, batch in _saved(images).items():
        name, kind = image_name(batch[0].filename), Path(batch[0].filename).suffix
        data = [image.data for image in batch]
        if kind in MOVING:
            file = output / f"{name}{kind}"
            file.write_bytes(data[0])
        else:
            file = output / f"{name}.png"
            beside(data).save(file)
            outcome.images[name] = data
        outcome.files[name] = file
        outcome.titles[name] = graph[node_id].get("_meta", {}).get("title") or graph[node_id]["class_type"]


def image_name(filename: str) -> str:
    """Return the name that the workflow's author gave, such as `features` for `features_00001_.png`."""
    return re.sub(r"_\d+_$", "", Path(filename).stem)


def beside(files: Sequence[bytes], gap: int = 4) -> Image.Image:
    """Join the images of one batch into a row, with `gap` white pixels between them."""
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    width = sum(image.width + gap for image in images) - gap
    row = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


def _saved(images: Sequence[OutputImage]) -> dict[str, list[OutputImage]]:
    """Return the images that were saved (not those only previewed), by node, in the order of node ids."""
    nodes: dict[str, list[OutputImage]] = {}
    for image in images:
        if image.type == "output":
            nodes.setdefault(image.node_id, []).append(image)
    return dict(sorted(nodes.items(), key=lambda node: int(node[0].partition(":")[0])))


def _blame(error: RunError) -> str:
    where = f"node {error.node_id} ({error.node_type}): " if error.node_id else ""
    return where + error.message.rstrip(".")


def _nodes(workflow: Path) -> list[dict[str, Any]]:
    return list(json.loads(workflow.read_text(encoding="utf-8"))["nodes"])
