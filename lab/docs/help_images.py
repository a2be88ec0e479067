"""Make the images of the help pages: `dev.py run -- python -m lab.docs.help_images [NODE ...]`.

Open graphs in a browser and cut out an image of each node: from the small graph that `rest` returns, after a
run, or from a workflow as it looks when opened. By default, make the images that are missing. If a node draws
figures, its help page shows such a figure instead.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from devtools.base import make_base
from devtools.chromium import FLAGS, ensure_chromium
from devtools.places import ROOT, find_places
from devtools.problem import Problem, exit_code
from devtools.server import running_server

PAGES = ROOT / "web" / "docs"
MARGIN = 26
"""How many pixels of the graph are shown on each side of a node."""
WIDEST = 860
"""The widest image, in pixels."""
_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.VueNodes.Enabled": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
}
_READY = "() => Boolean(window.app?.graph && window.LiteGraph?.registered_node_types?.KSampler)"
_RUN = """() => new Promise((done, fail) => {
    const {api} = window.app
    api.addEventListener('execution_success', () => done(), {once: true})
    api.addEventListener('execution_error', e => fail(new Error(e.detail.exception_message)), {once: true})
    window.app.queuePrompt(0)
})"""
_FIND = "name => window.app.graph._nodes.findIndex(n => n.type === name && n.mode === 0)"
_PUT = """([index, margin, widest]) => {
    const {graph, canvas} = window.app, node = graph._nodes[index]
    canvas.deselectAll?.()
    canvas.links_render_mode = -1
    graph._groups.length = 0
    node.pos = [50000, 50000 * (index + 1)]
    node.title = node.constructor.title
    const texts = node.widgets?.some(w => w.element), [wide, high] = node.computeSize()
    node.setSize([Math.max(wide, 340), texts ? Math.max(high, 330) : high])
    const room = canvas.canvas.getBoundingClientRect()
    const [left, top, width, height] = [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30]
    const most = Math.min(room.width, widest) - 2 * margin
    const scale = Math.min(1.2, most / width, (room.height - 2 * margin) / height)
    canvas.ds.scale = scale
    canvas.ds.offset = [margin / scale - left, margin / scale - top]
    canvas.setDirty(true, true)
    return {x: room.x, y: room.y, width: width * scale + 2 * margin, height: height * scale + 2 * margin}
}"""
"""Move a node to the upper left of the window, hide the links, and return the node's area on the page."""


def rest() -> dict[str, Any]:
    """Return a quick graph, in API format, with the nodes that show text or that no workflow contains."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "1": node("RevelioMiniModel"),
        "2": node("RevelioLoadSAE", sae="revelio_mini_text.safetensors", hook_point="", captured="auto"),
        "3": node("RevelioRecordText", clip=["1", 1], sae=["2", 0], text="a person with glasses", count=3),
        "12": node(
            "RevelioTopFeatures", trace=["3", 1], count=6, by="distinct", role="cond", step=-1, hook_point=""
        ),
        "4": node("RevelioSaveTrace", trace=["3", 1], filename_prefix="revelio/trace"),
        "5": node("RevelioLoadTrace", trace="revelio/trace_00001_.safetensors"),
        "6": node("CLIPTextEncode", clip=["1", 1], text="a portrait of a person with glasses"),
        "7": node(
            "RevelioSteerConditioning", conditioning=["6", 0], clip=["1", 1], sae=["2", 0], concept="glasses",
            strength=-2.0, method="contrast",
        ),
        "8": node("RevelioLoadSAE", sae="revelio_mini_up4.safetensors", hook_point="", captured="auto"),
        "9": node("SolidMask", value=1.0, width=128, height=128),
        "10": node("RevelioTransferFeatures", model=["1", 0], sae=["8", 0], source=["5", 0],
                   source_mask=["9", 0], strength=1.0, count=80, method="adaptive", spread="place",
                   start_percent=0.0, end_percent=1.0),
        "13": node("RevelioSelectFeatures", sae=["8", 0], features="1203 = -1\nglasses = -2"),
        "14": node("RevelioRecordPrompts", model=["1", 0], clip=["1", 1], sae=["8", 0],
                   prompts="a portrait with glasses\na portrait with a hat"),
        "15": node("RevelioLabelFeatures", model=["1", 0], clip=["1", 1], vae=["1", 2], sae=["8", 0],
                   prompts="a portrait with glasses\na portrait with a hat", pictures=8, steps=2),
        "11": node("RevelioConceptVector", model=["1", 0], clip=["1", 1], hook_point="middle_block.1",
                   concept="glasses"),
    }  # fmt: skip


def take(wanted: list[str]) -> int:
    """Save images of the nodes with these ids next to their help pages."""
    from playwright.sync_api import sync_playwright

    places = find_places()
    made: list[Path] = []
    with (
        running_server(places.comfyui, make_base(places.base("help")), places.python) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=ensure_chromium(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1700, "height": 1300})
        page.goto(server.url)
        page.wait_for_function(_READY, timeout=120_000)
        for name, value in _SETTINGS.items():
            page.evaluate("([k, v]) => window.app.extensionManager.setting.set(k, v)", [name, value])
        page.reload()
        page.wait_for_function(_READY, timeout=120_000)
        page.evaluate("() => window.app.extensionManager.toggleFocusMode?.()")
        for graph in _graphs(set(wanted)):
            missing = [name for name in wanted if (PAGES / f"{name}.webp") not in made]
            here = [name for name in missing if f'"{name}"' in json.dumps(graph)]
            if not here:
                continue
            load = "loadGraphData" if "nodes" in graph else "loadApiJson"
            page.evaluate(f"graph => window.app.{load}(graph, 'help')", graph)
            page.wait_for_timeout(1500)
            if "nodes" not in graph:
                page.evaluate(_RUN)
                page.wait_for_timeout(3000)
            for name in here:
                made.append(_cut_out(page, name))
                print(made[-1].relative_to(ROOT), flush=True)
        browser.close()
    if lost := [name for name in wanted if PAGES / f"{name}.webp" not in made]:
        raise Problem(f"No graph contains {', '.join(lost)}; add them to rest() in {Path(__file__).name}.")
    return 0


def _graphs(wanted: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the graph that `rest` returns, then the bundled model's workflows that contain a wanted node."""
    yield rest()
    for file in sorted((ROOT / "workflows").glob("*.json")):
        graph = json.loads(file.read_text(encoding="utf-8"))
        ours = "RevelioMiniModel" in {node["type"] for node in graph["nodes"]}
        if ours and wanted & {node["type"] for node in graph["nodes"]}:
            yield graph


def _cut_out(page: Any, name: str) -> Path:
    index = page.evaluate(_FIND, name)
    area = page.evaluate(_PUT, [index, MARGIN, WIDEST])
    page.wait_for_timeout(1500)
    shot = Image.open(io.BytesIO(page.screenshot(clip=area))).convert("RGB")
    file = PAGES / f"{name}.webp"
    shot.save(file, quality=82, method=6)
    return file


def main() -> int:
    line = argparse.ArgumentParser("lab.docs.help_images", description=__doc__)
    line.add_argument("nodes", nargs="*", metavar="NODE", help="node ids; by default those without an image")
    named = line.parse_args().nodes
    missing = [page.stem for page in sorted(PAGES.glob("*.md")) if not page.with_suffix(".webp").exists()]
    return exit_code(lambda: take(named or missing))


if __name__ == "__main__":
    sys.exit(main())
