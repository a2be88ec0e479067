"""The page that the demo leaves, and what its images and metrics are called there."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.demo.captions import CAPTIONS
from devtools.demo.explorer import WORKFLOW as EXPLORER
from devtools.demo.metrics_page import full_sample
from devtools.demo.page import Context, markdown_line, write_page
from devtools.demo.workflows import Outcome, bundled_workflows, note_of
from devtools.places import ROOT

EFFECT = {"removal_relative": 0.75, "removal_cost": 0.012, "addition_points": 0.5, "addition_cost": -0.02}
REPORT: dict[str, Any] = {
    "comfyui_version": "0.3.75",
    "mini_model": {
        "prompt_accuracy": 0.953,
        "n_prompts": 34,
        "by_attribute": {"hat": 0.953},
        "chance": {"hat": 0.5},
    },
    "judge": {"accuracy": 0.99, "by_attribute": {"hat": 0.99}, "n_renders": 3000},
    "saes": [
        {"name": "mini", "hook_point": "middle_block.1", "n_features": 1536, "k": 16, "dead_share": 0.01}
        | {"explained_variance": 0.883, "l0": 16.0}
    ],
    "steering": {"n_per_concept": 4, "concepts": ["glasses"], "steer_features": {"summary": EFFECT}},
}
CONTEXT = Context("2026-11-28 12:00", "the CPU", ["No browser <here>."])


class _Page(HTMLParser):
    """What a page refers to, and the text of its captions and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.alts: list[str] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.ids |= {values["id"]} if "id" in values else set()
        self.alts += [values["alt"]] if tag == "img" else []
        self._in_cell = tag == "td"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = False


@pytest.fixture
def output() -> Any:
    """A folder beside the repository's files, as `output/` is."""
    folder = ROOT / "output" / "test_demo_page"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _outcome(workflow: Path, output: Path, *names: str, error: str = "") -> Outcome:
    outcome = Outcome(workflow, 3.2, error)
    for number, name in enumerate(names):
        file = outcome.files[name] = output / f"{name}.png"
        Image.new("RGB", ((128, 524, 1400)[number % 3], 128), "red").save(file)
    return outcome


def test_all_it_refers_to_is_there_and_nothing_is_far_away(output: Path) -> None:
    workflows = {workflow.stem: workflow for workflow in bundled_workflows()}
    outcomes = [
        _outcome(workflows["01_see_features"], output, "01_picture", "01_features_middle", "01_features_up2"),
        _outcome(workflows[EXPLORER], output, "explorer", "explorer_steered"),
    ]
    (output / "report.json").write_text("{}")
    text = write_page(output, outcomes, REPORT, CONTEXT).read_text(encoding="utf-8")
    page = _Page(text)
    images = {file.name for file in output.glob("*.png")}
    assert set(page.sources) == images
    assert images <= set(page.links)
    assert set(page.alts) == {CAPTIONS[name.removesuffix(".png")] for name in images}
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (output / link).is_file(), link
    assert "://" not in text and "//cdn" not in text and "@import" not in text
    assert "No browser &lt;here&gt;." in text


def test_metrics_stand_there_with_the_size_of_their_sample(output: Path) -> None:
    text = write_page(output, [], REPORT, CONTEXT).read_text(encoding="utf-8")
    cells = _Page(text).cells
    assert cells[cells.index("Steer Features") :][:5] == ["Steer Features", "75%", "1.2", "50", "-2.0"]
    assert "4 images for each direction of glasses" in text
    assert "34 prompts" in text
    assert "0.883" in cells and "95.3%" in cells


def test_the_full_sample_is_the_one_of_the_model_card(output: Path) -> None:
    found = full_sample()
    assert found is not None
    size, rows = found
    assert size == "128 prompts per concept and direction"
    assert [row[0] for row in rows][:2] == ["Steer Concept, contrast", "Steer Concept, paper"]
    assert {len(row) for row in rows} == {5}
    cells = _Page(write_page(output, [], REPORT, CONTEXT).read_text(encoding="utf-8")).cells
    assert all(row[1] in cells for row in rows)


def test_a_page_without_metrics_is_written_too(output: Path) -> None:
    workflow = bundled_workflows()[0]
    outcome = _outcome(workflow, output, error="node 3 (KSampler): no <memory>")
    text = write_page(output, [outcome], {"comfyui_version": "0.3.75"}, CONTEXT).read_text(encoding="utf-8")
    assert "This workflow failed: node 3 (KSampler): no &lt;memory&gt;." in text


def test_every_image_of_a_bundled_workflow_has_a_caption() -> None:
    saved = set()
    for workflow in bundled_workflows():
        for node in json.loads(workflow.read_text(encoding="utf-8"))["nodes"]:
            if node["type"] in ("SaveImage", "SaveVideo", "SaveAnimatedWEBP"):
                saved.add(str(node["widgets_values"][0]).removeprefix("revelio/"))
    assert saved <= set(CAPTIONS)
    assert set(CAPTIONS) - saved == {"explorer", "explorer_steered"}


def test_every_bundled_workflow_opens_with_a_heading_and_a_paragraph() -> None:
    for workflow in bundled_workflows():
        heading, text = note_of(workflow)
        assert heading and not heading.startswith("#"), workflow.name
        assert text and "\n#" not in text, workflow.name


def test_marks_of_a_note_become_html_and_nothing_else_does() -> None:
    assert markdown_line("a **b** *c* `d*e*` <x>") == (
        "a <strong>b</strong> <em>c</em> <code>d*e*</code> &lt;x&gt;"
    )
