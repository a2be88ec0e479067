"""The explorer's texts in another language, as ComfyUI hands out the pack's locales."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from devtools.browser import READY
from devtools.places import ROOT

pytestmark = pytest.mark.browser

SET_LOCALE = "locale => window.app.extensionManager.setting.set('Comfy.Locale', locale)"


def test_the_explorer_is_in_the_language_of_the_interface(page: Page) -> None:
    locale = json.loads((ROOT / "locales" / "zh" / "main.json").read_text(encoding="utf-8"))
    texts = locale["revelio"]["explorer"]
    workflow = json.loads((ROOT / "workflows" / "05_explore_and_steer.json").read_text(encoding="utf-8"))
    title = page.locator(".rv-explorer .rv-notice h3")
    try:
        for language, text in (("zh", texts["Nothing to show yet"]), ("en", "Nothing to show yet")):
            page.evaluate(SET_LOCALE, language)
            page.reload()
            page.wait_for_function(READY, timeout=60_000)
            page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
            expect(title).to_have_text(text)
    finally:
        page.evaluate(SET_LOCALE, "en")
