"""The real user interface in a real browser."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from devtools.base import PACK_FOLDER
from devtools.client import Client

from .conftest import ROOT

pytestmark = pytest.mark.browser

WORKFLOWS = ("01_see_features", "02_steer_a_feature", "03_steer_a_concept")
"""Those that are run in the browser; training runs in test_workflows.py only, for its length."""
SCREENSHOTS = ROOT / "output" / "screenshots"
WANTED = bool(os.environ.get("REVELIO_SCREENSHOTS"))
"""Whether to leave a screenshot of each workflow, as in the README, in output/screenshots."""

RUN_SECONDS = 240

FIT = """(margin) => {
    const {graph, canvas} = window.app
    const boxes = [...graph._nodes.filter(n => !n.flags.collapsed).map(n => n.getBounding()),
                   ...graph._groups.map(g => g.boundingRect ?? g._bounding)]
    const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]))
    const width = Math.max(...boxes.map(b => b[0] + b[2])) - left
    const height = Math.max(...boxes.map(b => b[1] + b[3])) - top
    const room = canvas.canvas.getBoundingClientRect()
    const scale = Math.min((room.width - 2 * margin) / width, (room.height - 2 * margin) / height)
    canvas.ds.scale = scale
    canvas.ds.offset = [(room.width / scale - width) / 2 - left, (room.height / scale - height) / 2 - top]
    canvas.setDirty(true, true)
}"""
"""Zoom and move the canvas so that the whole graph is in the middle of it."""

QUIET = {
    "Comfy.TutorialCompleted": True,  # or the template browser opens by itself for a new user
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.VueNodes.Enabled": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # letters at every zoom
}


@pytest.fixture
def quiet_page(page: Page) -> Page:
    """The page without anything that lies over the graph."""
    for name, value in QUIET.items():
        page.evaluate(
            "([name, value]) => window.app.extensionManager.setting.set(name, value)", [name, value]
        )
    page.evaluate("() => localStorage.setItem('vueNodesBannerDismissed', 'true')")
    page.reload()
    page.wait_for_function(
        "() => Boolean(window.app?.graph && window.LiteGraph?.registered_node_types?.KSampler)",
        timeout=60_000,
    )
    page.get_by_role("button", name="Templates").first.wait_for()
    return page


def test_the_browser_knows_every_node_of_the_pack(page: Page, client: Client) -> None:
    known = set(page.evaluate("Object.keys(window.LiteGraph.registered_node_types)"))
    ours = {name for name in client.object_info() if name.startswith("Revelio")}
    assert ours
    assert ours <= known


def test_every_workflow_has_a_thumbnail(page: Page, client: Client) -> None:
    """The card in the template browser shows the .jpg of the same name."""
    for name in WORKFLOWS:
        answer = page.request.get(f"{client.url}/api/workflow_templates/{PACK_FOLDER}/{name}.jpg")
        assert answer.ok, f"workflows/{name}.jpg is missing"
        with Image.open(io.BytesIO(answer.body())) as picture:
            assert picture.format == "JPEG" and min(picture.size) >= 256


@pytest.mark.parametrize("name", WORKFLOWS if WANTED else WORKFLOWS[:1])
def test_a_template_is_opened_queued_and_finishes(quiet_page: Page, name: str) -> None:
    page = quiet_page
    _open_template(page, name)
    assert page.evaluate("() => window.app.graph._nodes.filter(n => n.has_errors).length") == 0
    _watch_runs(page)
    page.get_by_test_id("queue-button").get_by_role("button").first.click()
    page.wait_for_function("() => window.revelioRuns.length > 0", timeout=RUN_SECONDS * 1000)
    assert page.evaluate("() => window.revelioRuns") == ["execution_success"]

    showing = "n => ['SaveImage', 'RevelioFeatureMaps'].includes(n.type) && !n.flags.collapsed"
    loaded = "n => n.imgs?.length > 0 && n.imgs.every(i => i.complete && i.naturalWidth > 0)"
    page.wait_for_function(f"() => window.app.graph._nodes.filter({showing}).every({loaded})", timeout=60_000)
    _clear_the_view(page)
    for area in _picture_areas(page, showing):
        assert _colours(page, area) > 64, "a node shows no picture"
    if WANTED:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")


def _open_template(page: Page, name: str) -> None:
    """By the buttons that a user presses; checks that all workflows of the pack are on offer."""
    page.get_by_role("button", name="Templates").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(PACK_FOLDER, exact=True).click()
    for offered in WORKFLOWS:
        expect(dialog.get_by_test_id(f"template-workflow-{offered}")).to_be_visible(timeout=30_000)
    expect(dialog.locator("[data-testid^=template-workflow-]")).to_have_count(5, timeout=30_000)
    dialog.get_by_test_id(f"template-workflow-{name}").click()
    expect(dialog).to_have_count(0, timeout=30_000)
    page.wait_for_function("() => window.app.graph._nodes.some(n => n.type === 'RevelioMiniModel')")


def _watch_runs(page: Page) -> None:
    """Collect in `revelioRuns` how each run ends."""
    page.evaluate(
        """() => {
            window.revelioRuns = []
            for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
                window.app.api.addEventListener(kind, () => window.revelioRuns.push(kind))
        }"""
    )


def _clear_the_view(page: Page) -> None:
    """The graph alone: toolbars away, messages closed, everything in view."""
    page.evaluate("() => document.querySelectorAll('.p-toast-message button').forEach(b => b.click())")
    page.evaluate(
        "() => { window.app.extensionManager.focusMode || window.app.extensionManager.toggleFocusMode() }"
    )
    page.wait_for_timeout(1000)  # the canvas takes the room of the toolbars
    page.evaluate(FIT, 24)
    page.wait_for_timeout(1500)  # a frame or two on a slow machine


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
