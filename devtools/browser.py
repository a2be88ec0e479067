"""Control ComfyUI in a browser through Playwright: wait until it is ready, and show only the graph."""

from __future__ import annotations

from typing import Any

READY = "() => Boolean(window.app?.graph && window.LiteGraph?.registered_node_types?.KSampler)"

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
"""Zoom and move the canvas so that the whole graph is visible and centred."""

FOCUS = """() => {
    const {graph, canvas} = window.app, node = graph._nodes.find(n => n.type === 'RevelioExplorer')
    const room = canvas.canvas.getBoundingClientRect()
    const scale = Math.min((room.width - 120) / node.size[0], (room.height - 160) / (node.size[1] + 30), 1)
    canvas.ds.scale = scale
    canvas.ds.offset = [
        (room.width / scale - node.size[0]) / 2 - node.pos[0],
        (room.height / scale - node.size[1] + 40) / 2 - node.pos[1],
    ]
    canvas.setDirty(true, true)
}"""
"""Centre the Explorer's node in the window, at full size if it fits."""

QUIET = {
    "Comfy.TutorialCompleted": True,  # else the template browser opens for a new user
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.VueNodes.Enabled": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # show text at every zoom
}


def make_quiet(page: Any, **settings: object) -> None:
    """Hide everything that covers the graph, apply the given settings as well, and reload the page."""
    for name, value in (QUIET | settings).items():
        page.evaluate(
            "([name, value]) => window.app.extensionManager.setting.set(name, value)", [name, value]
        )
    page.evaluate("() => localStorage.setItem('vueNodesBannerDismissed', 'true')")
    page.reload()
    page.wait_for_function(READY, timeout=60_000)
    page.get_by_role("button", name="Templates").first.wait_for()
