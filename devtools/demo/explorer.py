"""Use the Explorer as a user would, in a headless Chromium: click on the glasses, steer them, run again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..browser import FOCUS, make_quiet
from ..chromium import FLAGS
from ..client import Client
from .workflows import Outcome, keep

WORKFLOW = "05_explore_and_steer"
AT_THE_GLASSES = (0.5, 0.47)
"""The position of the glasses in the workflow's image, as shares of its width and height."""
STRENGTH = "-2.5"
WINDOW = (1600, 1000)
"""Width and height of the browser in pixels."""
SECONDS = 240.0
"""How long to wait for one run of the workflow, at most."""

_RUN = """() => new Promise((done, fail) => {
    const {api} = window.app
    api.addEventListener('execution_success', () => done(), {once: true})
    api.addEventListener('execution_error', e => fail(new Error(e.detail.exception_message)), {once: true})
    window.app.queuePrompt(0)
})"""

_AREA = """() => {
    const {graph, canvas} = window.app, node = graph._nodes.find(n => n.type === 'RevelioExplorer')
    const {scale, offset} = canvas.ds, room = canvas.canvas.getBoundingClientRect()
    return {
        x: room.x + (node.pos[0] + offset[0]) * scale,
        y: room.y + (node.pos[1] - 30 + offset[1]) * scale,
        width: node.size[0] * scale,
        height: (node.size[1] + 30) * scale,
    }
}"""
"""Return the area of the window that the Explorer's node covers, including its title (30 units high)."""


class NoBrowser(Exception):
    """Chromium is installed but does not start."""


def explore(client: Client, workflow: Path, chromium: Path, output: Path) -> Outcome:
    """Walk through the Explorer's workflow; save two screenshots of its node, and the sampled images.

    chromium: the executable. Raises NoBrowser if it cannot be started; any later failure becomes the
    outcome's error.
    """
    from playwright.sync_api import Error

    started = time.monotonic()
    outcome = Outcome(workflow)
    graph = json.loads(workflow.read_text(encoding="utf-8"))
    with _page(chromium) as page:
        try:
            _walk(page, client.url, graph, output, outcome)
        except Error as problem:
            outcome.error = problem.message.partition("\n")[0].rstrip(".")
    if not outcome.error:
        keep(client.images_of_last_run(), client.to_api(graph), output, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


def _walk(page: Any, url: str, graph: dict[str, Any], output: Path, outcome: Outcome) -> None:
    page.goto(url)
    page.wait_for_function("() => Boolean(window.app?.extensionManager?.setting)", timeout=60_000)
    make_quiet(page)
    page.evaluate("([graph, name]) => window.app.loadGraphData(graph, true, true, name)", [graph, WORKFLOW])
    page.evaluate("() => window.app.extensionManager.toggleFocusMode?.()")
    explorer = page.locator(".rv-explorer")
    explorer.wait_for()
    page.evaluate(_RUN)
    explorer.locator(".rv-card").first.wait_for()
    page.evaluate(FOCUS)
    page.wait_for_timeout(600)  # the node needs a frame or two to move
    box = explorer.locator(".rv-layers").first.bounding_box()
    x, y = AT_THE_GLASSES
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    explorer.locator(".rv-card[data-kind=concept][data-name=glasses] .rv-card-main").click()
    explorer.locator(".rv-page h3").first.wait_for()
    _keep_node(page, "explorer", output, outcome)

    explorer.locator(".rv-page .rv-steer").click()
    explorer.locator(".rv-line[data-name=glasses] input[type=range]").fill(STRENGTH)
    page.evaluate(_RUN)
    _keep_node(page, "explorer_steered", output, outcome)


def _keep_node(page: Any, name: str, output: Path, outcome: Outcome) -> None:
    """Save a screenshot of the Explorer's node."""
    page.mouse.move(0, 0)
    page.evaluate("() => window.app.canvas.deselectAll()")  # no buttons above the node
    page.wait_for_timeout(1500)  # the canvas draws a frame after its images have loaded
    outcome.files[name] = output / f"{name}.png"
    page.screenshot(path=outcome.files[name], clip=page.evaluate(_AREA))


@contextmanager
def _page(chromium: Path) -> Iterator[Any]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        except Error as problem:
            raise NoBrowser(problem.message.partition("\n")[0]) from None
        try:
            page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
            page.set_default_timeout(SECONDS * 1000)
            yield page
        finally:
            browser.close()
