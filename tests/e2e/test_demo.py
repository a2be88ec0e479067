"""What `dev.py demo` does with one workflow file of the browser's format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from devtools.client import Client
from devtools.demo import run_workflow


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    """Two blue pictures, saved; a note, which is no node for the server."""
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
                "title": "Two blue pictures",
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


def test_pictures_and_report(
    client: Client, workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = run_workflow(client, workflow, tmp_path)
    assert entry.pop("seconds") >= 0
    assert entry == {"file": "00_blue.json", "status": "success", "images": ["blue.png"]}
    picture = Image.open(tmp_path / "blue.png")
    assert picture.size == (24 + 4 + 24, 16)
    assert picture.getpixel((3, 3)) == (0, 0, 255)
    assert "blue.png: Two blue pictures" in capsys.readouterr().out


def test_a_failure_names_the_node(client: Client, workflow: Path, tmp_path: Path) -> None:
    workflow.write_text(workflow.read_text().replace("[24, 16, 2, 255]", "[-24, 16, 2, 255]"))
    entry = run_workflow(client, workflow, tmp_path)
    assert entry["status"] == "failed"
    assert "00_blue.json: node 1 (EmptyImage): " in entry["error"]
    assert entry["images"] == []
