"""What `dev.py demo` does with one workflow file of the browser's format, and with the Explorer."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from devtools.chromium import ensure_chromium
from devtools.client import Client
from devtools.demo import explorer
from devtools.demo.estimate import Estimate
from devtools.demo.progress import Progress
from devtools.demo.run import calibrate, steps
from devtools.demo.workflows import Outcome, bundled_workflows, run_workflow


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    """Two blue images, saved; a note, which is no node for the server."""
    content = {
        "version": 0.4,
        "last_node_id": 3,
        "last_link_id": 1,
        "groups": [],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
        "nodes": [
            {
                "id": 1,
                "type": "EmptyImage",
                "mode": 0,
                "inputs": [],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
                "widgets_values": [24, 16, 2, 255],
            },
            {
                "id": 2,
                "type": "SaveImage",
                "title": "Two blue images",
                "mode": 0,
                "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
                "outputs": [],
                "widgets_values": ["revelio/blue"],
            },
            {
                "id": 3,
                "type": "MarkdownNote",
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "widgets_values": ["#"],
            },
        ],
    }
    file = tmp_path / "00_blue.json"
    file.write_text(json.dumps(content))
    return file


def test_images_and_report(client: Client, workflow: Path, tmp_path: Path) -> None:
    outcome = run_workflow(client, workflow, tmp_path)
    entry = outcome.entry()
    assert entry.pop("seconds") >= 0
    assert entry == {"file": "00_blue.json", "status": "success", "images": ["blue.png"]}
    image = Image.open(tmp_path / "blue.png")
    assert image.size == (24 + 4 + 24, 16)
    assert image.getpixel((3, 3)) == (0, 0, 255)
    assert outcome.caption("blue") == "Two blue images"
    assert len(outcome.images["blue"]) == 2


def test_a_failure_names_the_node(client: Client, workflow: Path, tmp_path: Path) -> None:
    workflow.write_text(workflow.read_text().replace("[24, 16, 2, 255]", "[-24, 16, 2, 255]"))
    entry = run_workflow(client, workflow, tmp_path).entry()
    assert entry["status"] == "failed"
    assert "00_blue.json: node 1 (EmptyImage): " in entry["error"]
    assert entry["images"] == []


def test_the_speed_is_measured_on_the_work_itself(client: Client) -> None:
    workflows = bundled_workflows()
    estimate = Estimate(steps(workflows, 4, everything=True))
    told = io.StringIO()
    with Progress(estimate, stream=told) as progress:
        calibrate(client, progress)
    assert estimate.scale != 1
    rest = sum(step.seconds for step in steps(workflows, 0, everything=True)[2:])
    assert estimate.left() == pytest.approx(rest * estimate.scale + 240)


def _explore(client: Client, workflow: Path, chromium: Path, output: Path) -> Outcome:
    """In a thread: each can have one Playwright, and the tests' own browser may be open in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(explorer.explore, client, workflow, chromium, output).result()


@pytest.mark.browser
def test_the_explorer_is_walked_through(client: Client, tmp_path: Path) -> None:
    (workflow,) = (file for file in bundled_workflows() if file.stem == explorer.WORKFLOW)
    outcome = _explore(client, workflow, ensure_chromium(), tmp_path)
    assert outcome.error == ""
    assert list(outcome.files) == ["explorer", "explorer_steered", "05_without", "05_steered"]
    sizes = {name: Image.open(file).size for name, file in outcome.files.items()}
    assert sizes["explorer"] == sizes["explorer_steered"]
    assert sizes["explorer"][0] > 600 and sizes["explorer"] < explorer.WINDOW
    assert (tmp_path / "explorer.png").read_bytes() != (tmp_path / "explorer_steered.png").read_bytes()
    assert (tmp_path / "05_steered.png").read_bytes() != (tmp_path / "05_without.png").read_bytes()


@pytest.mark.browser
def test_a_browser_that_does_not_start_is_told_apart_from_a_failure(client: Client, tmp_path: Path) -> None:
    (workflow,) = (file for file in bundled_workflows() if file.stem == explorer.WORKFLOW)
    with pytest.raises(explorer.NoBrowser):
        _explore(client, workflow, tmp_path / "no_browser", tmp_path)
