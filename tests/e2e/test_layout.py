"""The workflows as they lie on the canvas of a real browser, where nodes take the room that they need."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from playwright.sync_api import Page

from devtools.browser import FIT, make_quiet
from devtools.places import ROOT

pytestmark = pytest.mark.browser

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))

ROOM = """() => {
    const box = ([x, y], [width, height]) => [x, y - 30, x + width, y + height]  // with the title above
    const name = node => node.title || node.type
    return {
        nodes: window.app.graph._nodes.map(node => node.flags.collapsed
            ? {name: name(node), box: box(node.pos, [node._collapsed_width ?? 80, 0]), collapsed: true}
            : {name: name(node), box: box(node.pos, node.size), collapsed: false}),
        groups: window.app.graph._groups.map(group => {
            const [x, y, width, height] = group.boundingRect ?? group._bounding
            return {name: group.title, box: [x, y, x + width, y + height]}
        }),
    }
}"""
"""Nodes and groups by name, each with left, top, right and bottom."""

SHOW_PICTURES = """async () => {
    const kinds = ['SaveImage', 'SaveVideo', 'RevelioFeatureMaps', 'RevelioFeatureTimeline',
                   'RevelioImageGrid', 'RevelioFeatureAnimation', 'RevelioFindFeatures', 'RevelioWordMaps']
    const {graph, api} = window.app
    const picture = await new Promise(done => document.createElement('canvas').toBlob(done))
    const form = new FormData()
    form.append('image', picture, 'layout.png')
    form.append('overwrite', 'true')
    const {name} = await (await api.fetchApi('/upload/image', {method: 'POST', body: form})).json()
    const output = {images: [{filename: name, subfolder: '', type: 'input'}]}
    const shown = graph._nodes.filter(node => kinds.includes(node.type) && !node.flags.collapsed)
    for (const node of shown.map(({id}) => `${id}`)) {
        api.dispatchCustomEvent('executed', {node, display_node: node, prompt_id: 'layout', output})
    }
    return shown.length
}"""
"""Hand a picture to every node that shows some after a run: it then makes room for it."""

SETTLED = """() => new Promise(done => {
    const sizes = () => JSON.stringify(window.app.graph._nodes.map(({pos, size, imgs}) =>
        [...pos, ...size, imgs?.length ?? 0]))
    let before = '', calm = 0
    const look = () => {
        window.app.canvas.setDirty(true, true)
        const now = sizes()
        calm = now === before ? calm + 1 : 0
        before = now
        if (calm < 6) setTimeout(look, 100)
        else done()
    }
    look()
})"""
"""Resolves when no node has moved or grown for a while; the first drawing sets many sizes."""


@pytest.mark.parametrize("mode", ["classic", "nodes2"])
def test_nodes_have_room_and_lie_in_their_groups(page: Page, mode: str) -> None:
    """As opened and, on the classic canvas, with the pictures of a run in them.

    A node of the file is as large as it says or larger: what its inputs and its picture need counts.
    """
    make_quiet(page, **{"Comfy.VueNodes.Enabled": mode == "nodes2"})
    wrong = []
    for file in WORKFLOWS:
        page.evaluate(
            "graph => window.app.loadGraphData(graph)", json.loads(file.read_text(encoding="utf-8"))
        )
        page.evaluate(FIT, 24)
        page.evaluate(SETTLED)
        drawn = len(page.evaluate(ROOM)["nodes"])
        assert drawn == len(json.loads(file.read_text(encoding="utf-8"))["nodes"]) > 0
        if mode == "classic":
            assert page.evaluate(SHOW_PICTURES) > 0
            page.evaluate(SETTLED)
        wrong += [f"{file.stem}: {what}" for what in crowded(page.evaluate(ROOM))]
    assert not wrong, "\n".join(wrong)


def crowded(room: dict[str, Any]) -> list[str]:
    """Which nodes overlap, and which stick out of the group that their middle lies in, as sentences."""
    found = [
        f"“{one['name']}” and “{other['name']}” overlap"
        for one, other in combinations(room["nodes"], 2)
        if overlap(one["box"], other["box"])
    ]
    for node in (node for node in room["nodes"] if not node["collapsed"]):
        left, top, right, bottom = node["box"]
        for group in room["groups"]:
            x, y, x_end, y_end = group["box"]
            inside = x <= (left + right) / 2 <= x_end and y <= (top + bottom) / 2 <= y_end
            if inside and not (x <= left and y <= top and right <= x_end and bottom <= y_end):
                found.append(f"“{node['name']}” sticks out of the group “{group['name']}”")
    return found


def overlap(one: list[float], other: list[float]) -> bool:
    """Of two boxes: left, top, right, bottom."""
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])
