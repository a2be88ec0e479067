"""The explorer as somebody uses it who has never heard of a sparse autoencoder, in a real browser.

Each stage leaves a screenshot in output/screenshots.
"""

from __future__ import annotations

import io
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from torch import Tensor

from devtools.browser import FIT, FOCUS, make_quiet
from devtools.client import Client
from devtools.server import open_url
from lab.evaluate.judge import Judge, load_judge
from lab.evaluate.prompts import CONCEPTS, rate

from .conftest import SCREENSHOTS
from .pages import open_template, queue, wait_for_run, watch_runs

pytestmark = pytest.mark.browser

WORKFLOW = "05_explore_and_steer"
GLASSES = CONCEPTS[0]
AT_THE_GLASSES = (0.5, 0.47)
"""Where they are in the workflow's picture, in shares of it."""


@pytest.fixture(scope="module")
def judge(pack: Path) -> Judge:
    return load_judge(pack / "sae_weights" / "revelio_mini" / "judge.safetensors")


@pytest.fixture(scope="module", params=["classic", "nodes2"])
def story(request: pytest.FixtureRequest, browser: Any, server: Any) -> Iterator[tuple[Page, str]]:
    """ComfyUI with the workflow open, on the classic canvas and with Nodes 2.0; one page for all tests."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(server.url)
    page.wait_for_function("() => Boolean(window.app?.extensionManager?.setting)", timeout=60_000)
    make_quiet(page, **{"Comfy.VueNodes.Enabled": request.param == "nodes2"})
    open_template(page, WORKFLOW)
    watch_runs(page)
    page.wait_for_timeout(1500)
    page.evaluate(FOCUS)
    yield page, request.param
    page.close()


def test_glasses_are_seen_and_taken_off(story: tuple[Page, str], client: Client, judge: Judge) -> None:
    page, mode = story
    explorer = page.locator(".rv-explorer")
    expect(explorer.locator("[data-notice=new]")).to_be_visible()
    size = size_of_node(page)
    shot(page, mode, "1_opened")

    queue(page)
    expect(explorer.locator(".rv-notice")).to_be_hidden(timeout=30_000)
    expect(explorer.locator(".rv-card").first).to_be_visible(timeout=30_000)
    assert size_of_node(page) == size, "what the explorer shows makes its node grow"
    assert rate(judge.label(saved(client, "05_steered")), GLASSES, also=True) == 1.0
    shot(page, mode, "2_run")

    click_in_picture(explorer, *AT_THE_GLASSES)
    found = explorer.locator(".rv-card[data-kind=concept]")
    expect(found.first).to_be_visible()
    glasses = explorer.locator(".rv-card[data-kind=concept][data-name=glasses]")
    expect(glasses).to_be_visible()
    shot(page, mode, "3_clicked")

    glasses.locator(".rv-card-main").click()
    expect(explorer.locator(".rv-page h3").first).to_have_text("glasses")
    heats = [heat_at(explorer, step) for step in (0, 10, 19)]
    assert len(set(heats)) == 3, "the heat does not follow the steps"
    shot(page, mode, "4_page")

    explorer.locator(".rv-page .rv-steer").click()
    slider = explorer.locator(".rv-line[data-name=glasses] input[type=range]")
    slider.fill("-2.5")
    expect(explorer.locator(".rv-line[data-name=glasses] output")).to_have_text("−2.5")
    expect(explorer.locator(".rv-target")).to_contain_text("goes to Steer Features")
    assert inputs_of(page)["chosen"] == "glasses:-2.5"
    shot(page, mode, "5_less")

    before = page.evaluate("() => window.revelioRuns.length")
    explorer.locator(".rv-run").click()
    wait_for_run(page, before)
    steered = judge.label(saved(client, "05_steered"))
    assert rate(steered, GLASSES, also=True) == 0.0, "there are glasses"
    assert rate(judge.label(saved(client, "05_without")), GLASSES, also=True) == 1.0
    page.evaluate(FIT, 40)
    page.wait_for_timeout(600)
    shot(page, mode, "6_gone")
    page.evaluate(FOCUS)


def test_full_size_by_the_keyboard(story: tuple[Page, str]) -> None:
    page, mode = story
    explorer = page.locator(".rv-explorer")
    explorer.locator(".rv-stage").focus()
    page.keyboard.press("f")
    expect(page.locator("dialog.rv-dialog .rv-explorer")).to_be_visible()
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Home")
    expect(explorer.locator(".rv-step")).to_contain_text("Step 1")
    page.keyboard.press("End")
    expect(explorer.locator(".rv-step")).to_contain_text("Step 20")
    page.keyboard.press("Escape")  # the page, then the box and what is shown, then the dialog
    explorer.locator(".rv-stage").focus()
    shot(page, mode, "7_full_size")
    page.keyboard.press("1")
    expect(explorer.locator(".rv-page")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("glass")
    expect(explorer.locator(".rv-card[data-kind=concept][data-name=glasses]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(explorer.locator(".rv-search")).to_have_value("")
    page.evaluate("() => document.querySelector('dialog.rv-dialog').close()")
    expect(page.locator("dialog.rv-dialog")).to_have_count(0)
    expect(explorer).to_be_visible()


def test_a_feature_is_named(story: tuple[Page, str]) -> None:
    page, mode = story
    explorer = page.locator(".rv-explorer")
    explorer.locator(".rv-search").fill("1203")
    explorer.locator(".rv-card[data-name='1203'] .rv-card-main").click()
    expect(explorer.locator(".rv-page h3").first).to_have_text("Feature #1203")
    expect(explorer.locator(".rv-page .rv-chip").first).to_be_visible(timeout=30_000)
    name = explorer.locator(".rv-naming input")
    name.fill(f"my own name {mode}")
    with page.expect_response(lambda answer: "userdata" in answer.url and answer.request.method == "POST"):
        name.press("Enter")
    explorer.locator(".rv-search").fill("own name")
    expect(explorer.locator(".rv-card[data-name='1203']")).to_contain_text(f"my own name {mode}")
    explorer.locator(".rv-search").fill("")


def test_a_painted_region_becomes_the_mask(story: tuple[Page, str]) -> None:
    page, mode = story
    explorer = page.locator(".rv-explorer")
    explorer.get_by_role("button", name="Paint a region (B)").click()
    drag_in_picture(page, explorer, (0.3, 0.45), (0.45, 0.45))
    expect(explorer.locator(".rv-chosen")).to_contain_text("Painted region")
    painted = inputs_of(page)["painted"]
    assert painted.startswith("96x96:")
    shot(page, mode, "8_painted")
    page.keyboard.press("e")
    drag_in_picture(page, explorer, (0.3, 0.45), (0.45, 0.45))
    expect(explorer.locator(".rv-chosen")).not_to_contain_text("Painted region")  # rubbed out, all of it
    page.keyboard.press("b")
    drag_in_picture(page, explorer, (0.3, 0.45), (0.45, 0.45))
    explorer.get_by_role("button", name="Clear").click()
    assert wait_for_input(page, "painted", "") == ""
    page.keyboard.press("v")  # the button is gone, and the keys are still the explorer's
    expect(explorer.locator(".rv-stage")).to_have_attribute("data-tool", "inspect")


def test_a_place_whose_sae_is_not_connected_says_so(story: tuple[Page, str]) -> None:
    page, _mode = story
    explorer = page.locator(".rv-explorer")
    sentence = "Connect the SAE of this layer"
    explorer.get_by_role("tab", name="up 4").click()
    expect(explorer.locator(".rv-list")).to_contain_text(sentence)
    explorer.get_by_role("tab", name="up 2").click()
    expect(explorer.locator(".rv-card[data-kind=concept]").first).to_be_visible()
    expect(explorer.locator(".rv-list")).not_to_contain_text(sentence)


def test_the_state_is_in_the_workflow(story: tuple[Page, str]) -> None:
    """A workflow that is opened again opens the same view; a shared one says that its run is missing."""
    page, mode = story
    explorer = page.locator(".rv-explorer")
    workflow = page.evaluate("() => window.app.graph.serialize()")
    node = next(node for node in workflow["nodes"] if node["type"] == "RevelioExplorer")
    assert node["widgets_values"][0] == "glasses:-2.5"
    page.evaluate("graph => window.app.loadGraphData(graph)", workflow)
    expect(explorer.locator(".rv-line[data-name=glasses]")).to_be_visible(timeout=30_000)
    expect(explorer.locator(".rv-notice")).to_be_hidden(timeout=30_000)

    node["properties"]["revelio_run"]["trace"] = "0" * 32
    page.evaluate("graph => window.app.loadGraphData(graph)", workflow)
    expect(explorer.locator("[data-notice=lost]")).to_be_visible(timeout=30_000)
    expect(explorer.get_by_role("button", name="Run the workflow")).to_be_visible()
    assert inputs_of(page)["chosen"] == "glasses:-2.5"
    page.wait_for_timeout(800)
    page.evaluate(FOCUS)
    shot(page, mode, "9_shared")


def size_of_node(page: Page) -> list[float]:
    return list(
        page.evaluate("() => [...window.app.graph._nodes.find(n => n.type === 'RevelioExplorer').size]")
    )


def click_in_picture(explorer: Locator, x: float, y: float) -> None:
    box = explorer.locator(".rv-layers").first.bounding_box()
    assert box is not None
    explorer.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def drag_in_picture(
    page: Page, explorer: Locator, start: tuple[float, float], end: tuple[float, float]
) -> None:
    box = explorer.locator(".rv-layers").first.bounding_box()
    assert box is not None
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()


def heat_at(explorer: Locator, step: int) -> str:
    """The heat's pixels at a step, reached by the slider."""
    explorer.locator(".rv-track input").fill(str(step))
    expect(explorer.locator(".rv-step")).to_contain_text(f"Step {step + 1}")
    return str(explorer.locator("canvas.rv-heat").first.evaluate("canvas => canvas.toDataURL()"))


def inputs_of(page: Page) -> dict[str, Any]:
    """What the explorer's node would send to the server now."""
    return dict(
        page.evaluate(
            """async () => {
                const {output} = await window.app.graphToPrompt()
                return Object.values(output).find(n => n.class_type === 'RevelioExplorer').inputs
            }"""
        )
    )


def wait_for_input(page: Page, name: str, value: str) -> str:
    """What an input is once it has the value, or after a second."""
    for _ in range(20):
        if inputs_of(page)[name] == value:
            break
        page.wait_for_timeout(50)
    return str(inputs_of(page)[name])


def saved(client: Client, name: str) -> Tensor:
    """The picture that the last run saved under a name: [1, H, W, 3] in 0..1."""
    (last,) = client.get("/history?max_items=1").values()
    images = [image for output in last["outputs"].values() for image in output.get("images", [])]
    (place,) = [image for image in images if image["filename"].startswith(name)]
    data = open_url(f"{client.url}/view?{urllib.parse.urlencode(place)}")
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return torch.from_numpy(picture.copy()).float()[None] / 255


def shot(page: Page, mode: str, stage: str) -> None:
    page.wait_for_timeout(400)  # a frame or two
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"explorer_{mode}_{stage}.png")
