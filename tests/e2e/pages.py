"""What a user does in the browser, for all tests that do it."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from devtools.base import PACK_FOLDER
from devtools.browser import FIT
from devtools.places import ROOT

RUN_SECONDS = 240
WORKFLOWS = len(list((ROOT / "workflows").glob("*.json")))


def open_template(page: Page, name: str) -> None:
    """By the buttons that a user presses; checks that all workflows of the pack are on offer."""
    page.get_by_role("button", name="Templates").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(PACK_FOLDER, exact=True).click()
    expect(dialog.locator("[data-testid^=template-workflow-]")).to_have_count(WORKFLOWS, timeout=30_000)
    dialog.get_by_test_id(f"template-workflow-{name}").click()
    expect(dialog).to_have_count(0, timeout=30_000)
    page.wait_for_function("() => window.app.graph._nodes.some(n => n.type === 'RevelioMiniModel')")


def wait_for_pictures(page: Page, showing: str) -> None:
    """Wait until the nodes that the JavaScript function `showing` picks have loaded their pictures.

    A node asks for them when it is drawn, and only what is in the window is drawn: so everything is brought
    into view first, and drawn again at every look.
    """
    page.evaluate(FIT, 24)
    loaded = "n => n.imgs?.length > 0 && n.imgs.every(i => i.complete && i.naturalWidth > 0)"
    page.wait_for_function(
        f"""() => {{
            window.app.canvas.setDirty(true, true)
            return window.app.graph._nodes.filter({showing}).every({loaded})
        }}""",
        timeout=RUN_SECONDS * 1000,
        polling=500,
    )


def watch_runs(page: Page) -> None:
    """Collect in `revelioRuns` how each run ends."""
    page.evaluate(
        """() => {
            window.revelioRuns = []
            for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
                window.app.api.addEventListener(kind, () => window.revelioRuns.push(kind))
        }"""
    )


def clear_the_view(page: Page) -> None:
    """The graph alone: toolbars away, messages closed, everything in view."""
    page.evaluate("() => document.querySelectorAll('.p-toast-message button').forEach(b => b.click())")
    page.evaluate(
        "() => { window.app.extensionManager.focusMode || window.app.extensionManager.toggleFocusMode() }"
    )
    page.wait_for_timeout(1000)  # the canvas takes the room of the toolbars
    page.evaluate(FIT, 24)
    page.wait_for_timeout(1500)  # a frame or two on a slow machine


def queue(page: Page) -> None:
    """Press Run, and wait until that run has succeeded; `watch_runs` must have been called."""
    before = page.evaluate("() => window.revelioRuns.length")
    page.get_by_test_id("queue-button").get_by_role("button").first.click()
    wait_for_run(page, before)


def wait_for_run(page: Page, before: int) -> None:
    """Wait for the end of the run after the first `before` ones; fails the test when it has failed."""
    page.wait_for_function(f"() => window.revelioRuns.length > {before}", timeout=RUN_SECONDS * 1000)
    assert page.evaluate("() => window.revelioRuns")[before:] == ["execution_success"]
