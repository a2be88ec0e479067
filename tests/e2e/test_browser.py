"""The real user interface in a real browser."""

from __future__ import annotations

import io
import json
import os

import pytest
from PIL import Image
from playwright.sync_api import Page

from devtools.base import PACK_FOLDER
from devtools.client import Client
from devtools.places import ROOT

from .conftest import SCREENSHOTS
from .pages import clear_the_view, open_template, queue, wait_for_pictures, watch_runs

pytestmark = pytest.mark.browser

ALL = sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))
WORKFLOWS = ("01_see_features", "02_steer_a_feature", "03_steer_a_concept")
"""Those that are run in the browser; training runs in test_workflows.py only, for its length."""
WANTED = bool(os.environ.get("REVELIO_SCREENSHOTS"))
"""Whether to leave a screenshot of each workflow, as in the README, in output/screenshots."""


def test_the_browser_knows_every_node_of_the_pack(shared_page: Page, client: Client) -> None:
    known = set(shared_page.evaluate("Object.keys(window.LiteGraph.registered_node_types)"))
    ours = {name for name in client.object_info() if name.startswith("Revelio")}
    assert ours
    assert ours <= known


def test_every_workflow_has_a_thumbnail(shared_page: Page, client: Client) -> None:
    """The card in the template browser shows the .jpg of the same name."""
    for name in (*WORKFLOWS, "07_features_over_time", "08_compare_two_prompts"):
        answer = shared_page.request.get(f"{client.url}/api/workflow_templates/{PACK_FOLDER}/{name}.jpg")
        assert answer.ok, f"workflows/{name}.jpg is missing"
        with Image.open(io.BytesIO(answer.body())) as picture:
            assert picture.format == "JPEG" and min(picture.size) >= 256


@pytest.mark.parametrize("name", WORKFLOWS if WANTED else WORKFLOWS[:1])
def test_a_template_is_opened_queued_and_finishes(quiet_page: Page, name: str) -> None:
    page = quiet_page
    open_template(page, name)
    assert page.evaluate("() => window.app.graph._nodes.filter(n => n.has_errors).length") == 0
    watch_runs(page)
    queue(page)

    showing = "n => ['SaveImage', 'RevelioFeatureMaps'].includes(n.type) && !n.flags.collapsed"
    wait_for_pictures(page, showing)
    clear_the_view(page)
    for area in _picture_areas(page, showing):
        assert _colours(page, area) > 64, "a node shows no picture"
    if WANTED:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_the_browser_reads_every_value_where_the_file_has_it(shared_page: Page, client: Client) -> None:
    """The graph that the browser would send is the one that the other tests send.

    The browser has a widget more than the server after each seed, so that a file that was made without it
    has all later values one widget too early there, and runs here nevertheless.
    """
    for name in ALL:
        workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        shared_page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        sent = shared_page.evaluate("async () => (await window.app.graphToPrompt()).output")
        converted = client.to_api(workflow)
        for number, entry in converted.items():
            theirs = sent[number]
            assert theirs["class_type"] == entry["class_type"]
            for key, value in entry["inputs"].items():
                assert theirs["inputs"][key] == value, f"{name}: {key} of node {number}"


def test_help_pages_show_their_pictures(shared_page: Page, client: Client) -> None:
    """As the page asks for them: relative to the folder of the help pages."""
    for node in ("RevelioFeatureTimeline", "RevelioLoadSAE"):
        answer = shared_page.request.get(f"{client.url}/extensions/{PACK_FOLDER}/docs//{node}.webp")
        assert answer.ok, f"web/docs/{node}.webp"
        with Image.open(io.BytesIO(answer.body())) as picture:
            assert picture.format == "WEBP"


def _picture_areas(page: Page, showing: str) -> list[dict[str, float]]:
    """The lower half of each node that shows pictures, in pixels of the page."""
    return page.evaluate(
        f"""() => {{
            const {{ds, canvas}} = window.app.canvas, at = canvas.getBoundingClientRect()
            return window.app.graph._nodes.filter({showing}).map(n => ({{
                x: at.x + (n.pos[0] + ds.offset[0]) * ds.scale,
                y: at.y + (n.pos[1] + n.size[1] / 2 + ds.offset[1]) * ds.scale,
                width: n.size[0] * ds.scale,
                height: n.size[1] / 2 * ds.scale,
            }}))
        }}"""
    )


def _colours(page: Page, area: dict[str, float]) -> int:
    """How many colours a part of the page has; a node without its picture has a handful."""
    picture = Image.open(io.BytesIO(page.screenshot(clip=area))).convert("RGB")
    return len(picture.getcolors(maxcolors=picture.width * picture.height) or [])
