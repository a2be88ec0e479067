"""One real ComfyUI server for all tests that need it, started when the first of them asks.

A test takes `client` and sends graphs; when it fails, the end of the server's log stands in its report.
REVELIO_PACK names another copy of the pack to test, such as an unpacked archive.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "devtools"
SCREENSHOTS = ROOT / "output" / "screenshots"

if "devtools" not in sys.modules:  # by its own name, without the repository on the import path
    spec = importlib.util.spec_from_file_location("devtools", FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["devtools"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["devtools"])

from devtools.base import make_base  # noqa: E402
from devtools.browser import READY, make_quiet  # noqa: E402
from devtools.chromium import FLAGS, ensure_chromium  # noqa: E402
from devtools.client import Client  # noqa: E402
from devtools.places import find_places  # noqa: E402
from devtools.server import Server, running_server  # noqa: E402

_running: list[Server] = []


@pytest.fixture(scope="session")
def pack() -> Path:
    """The folder of the pack under test."""
    return Path(os.environ.get("REVELIO_PACK") or ROOT).resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> Iterator[Server]:
    """ComfyUI on the CPU, with the pack as its only custom node."""
    places = find_places()
    base = make_base(tmp_path_factory.mktemp("comfyui") / "base", pack=pack)
    with running_server(places.comfyui, base, Path(sys.executable)) as started:
        _running.append(started)
        yield started
    _running.clear()


@pytest.fixture(scope="session")
def client(server: Server) -> Client:
    return Client(server.url)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium of this machine; Playwright's own download is not needed."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=ensure_chromium(), args=list(FLAGS))
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, server: Server) -> Iterator[Page]:
    """ComfyUI in a new browser profile, ready to be used."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(server.url)
    page.wait_for_function(READY, timeout=60_000)
    yield page
    page.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page for one test alone."""
    with opened(browser, server) as page:
        yield page


@pytest.fixture(scope="module")
def shared_page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page for all tests of a file that change nothing on it but the graph; opening one takes seconds."""
    with opened(browser, server) as page:
        yield page


@pytest.fixture
def quiet_page(page: Page) -> Page:
    """The page without anything that lies over the graph."""
    make_quiet(page)
    return page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed and _running:
        report.sections.append(("end of the server's log", _running[0].tail()))
    return report
