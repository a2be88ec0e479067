"""The real user interface in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from devtools.client import Client

pytestmark = pytest.mark.browser


def test_the_browser_knows_every_node_of_the_pack(page: Page, client: Client) -> None:
    known = set(page.evaluate("Object.keys(window.LiteGraph.registered_node_types)"))
    ours = {name for name in client.object_info() if name.startswith("Revelio")}
    assert ours
    assert ours <= known
