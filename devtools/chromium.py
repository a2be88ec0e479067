"""Find or install a Chromium for the browser tests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .places import find_places
from .problem import Problem
from .process import install

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Start Chromium without a screen or background network traffic, even as root in a container."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)


def find_chromium() -> Path | None:
    """Find a Chromium, Chrome or Edge on this machine."""
    for candidate in (*map(shutil.which, NAMES), *APPLICATIONS):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


def ensure_chromium() -> Path:
    """Find a Chromium, or install one if this is Debian or Ubuntu and we are root."""
    found = find_chromium()
    if found is None and _may_use_apt():
        logs = find_places().logs
        sentence = "Chromium could not be installed with apt-get"
        install(
            "Reading the list of packages",
            ["apt-get", "update"],
            logs / "apt-update.log",
            on_failure=sentence,
        )
        install(
            "Installing Chromium",
            ["apt-get", "install", "-y", "chromium"],
            logs / "apt-install.log",
            on_failure=sentence,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )
        found = find_chromium()
    if found is None:
        raise Problem(
            "The browser tests need Chromium or Chrome on the PATH: install one, or skip them with "
            'python3 dev.py test -m "not browser".'
        )
    return found


def _may_use_apt() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get") is not None
