"""Measure how fast the Explorer responds and how much memory it takes, in headless Chromium with a large run.

The run has 50 steps, 4 hook points, 64 x 64 cells, 24 concepts and 5,120 features, 20 of them active in each
cell. Each change of step or feature is timed until the end of the frame that shows it; that frame also draws
a region's list of active features, or the feature's page. The aim: at most 50 ms at the 95th percentile, and
a heap (objects and typed arrays) below 300 MB after 1,000 changes. `python3 dev.py bench` runs this.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parents[1]
STEPS, SIDE, FEATURES, K = 50, 64, 5120, 20
HOOK_POINTS = ("input_blocks.8.1", "middle_block.1", "output_blocks.0.1", "output_blocks.1.1")
CONCEPTS = [f"concept {number}" for number in range(24)]
CHANGES, QUICK_CHANGES = 1000, 200
KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer changes")
    changes = QUICK_CHANGES if parser.parse_args().quick else CHANGES
    sys.path.append(str(ROOT))  # the pack's folder has a `nodes/` that must not hide ComfyUI's module
    answers = _answers()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        print(json.dumps(_measure(f"http://127.0.0.1:{server.server_port}", changes)))
    finally:
        server.shutdown()
    return 0


def _answers() -> dict[tuple[str, str], bytes]:
    """Return the bodies that the pack's routes would send: {(kind of request, hook point): body}."""
    import torch

    from comfy_revelio.dictionary import Codes
    from comfy_revelio.files import tensor_file
    from comfy_revelio.trace import Frame
    from comfy_revelio.trace.by_feature import by_feature

    generator = torch.Generator().manual_seed(0)
    answers: dict[tuple[str, str], bytes] = {}
    metadata = {"grid": f"{SIDE}x{SIDE}", "features": str(FEATURES)}
    for hook_point in HOOK_POINTS:
        frames = []
        for step in range(STEPS):
            # a different offset for each cell, so that no feature occurs twice
            start = torch.randint(FEATURES, (1, SIDE * SIDE, 1), generator=generator)
            indices = (start + torch.arange(K) * 251) % FEATURES
            values = torch.rand(1, SIDE * SIDE, K, generator=generator) + 0.01
            codes = Codes(indices, values, FEATURES)
            frames.append(Frame(hook_point, step, 0, float(STEPS - step), 0.0, "cond", (SIDE, SIDE), codes))
        answers["codes", hook_point] = tensor_file.to_bytes(by_feature(frames, 0), metadata)
        maps = torch.randint(
            2**15, (len(CONCEPTS), STEPS, SIDE, SIDE), dtype=torch.int16, generator=generator
        )
        scale = torch.full((len(CONCEPTS),), 1 / 2**15)
        answers["concepts", hook_point] = tensor_file.to_bytes({"maps": maps, "scale": scale}, metadata)
    answers["", ""] = json.dumps(
        {
            "key": "0" * 32,
            "total_steps": STEPS,
            "sigmas": list(range(STEPS, -1, -1)),
            "places": [_about(name) for name in HOOK_POINTS],
        }
    ).encode()
    return answers


def _about(name: str) -> dict[str, Any]:
    """Return the server's description of a hook point, as the page receives it."""
    return {
        "name": name,
        "grid": [SIDE, SIDE],
        "features": FEATURES,
        "k": K,
        "roles": ["cond"],
        "steps": list(range(STEPS)),
        "items": 1,
        "labels": {concept: [7 * n, 7 * n + 1] for n, concept in enumerate(CONCEPTS)},
        "concepts": [{"name": concept, "features": [7 * n]} for n, concept in enumerate(CONCEPTS)],
        "neighbours": True,
        "dictionary": name,
    }


def _handler(answers: dict[tuple[str, str], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            parts = address.path.strip("/").split("/")
            if parts[0] == "revelio":
                hook_point = parse_qs(address.query).get("hook_point", [""])[0]
                what = parts[3] if len(parts) > 3 else ""
                body = b'{"neighbours": []}' if what == "neighbours" else answers[what, hook_point]
                return self._send(body, "application/octet-stream")
            file = (ROOT / address.path.lstrip("/")).resolve()
            if not file.is_relative_to(ROOT) or not file.is_file():
                return self.send_error(404)
            self._send(file.read_bytes(), KINDS.get(file.suffix, "application/octet-stream"))

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    return Handler


def _measure(url: str, changes: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    from devtools.chromium import FLAGS, ensure_chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=ensure_chromium(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.goto(f"{url}/benchmarks/explorer.html")
        page.wait_for_function("() => window.view")
        key = "0" * 32
        page.evaluate(
            "key => view.show({trace: key, images: [], compareTrace: '', compareImages: [], warnings: []})",
            key,
        )
        page.wait_for_function("() => view.store.state.codes && view.store.state.presence")
        devtools = page.context.new_cdp_session(page)
        times: dict[str, list[float]] = {"step": [], "feature": [], "feature with its page": []}
        chance = random.Random(0)
        most = 0.0
        for change in range(changes):
            if change % 50 == 0:
                _go_to(page, HOOK_POINTS[(change // 50 + 1) % len(HOOK_POINTS)])  # the first is already shown
                most = max(most, _heap_megabytes(devtools))
            kind, patch = _change(chance, change)
            times[kind].append(page.evaluate("patch => timeChange(patch)", patch))
        devtools.send("HeapProfiler.collectGarbage")
        result = {
            "changes": changes,
            "ms": {kind: _percentiles(values) for kind, values in times.items()},
            "heap_mb_after": round(_heap_megabytes(devtools), 1),
            "heap_mb_highest_seen": round(most, 1),
        }
        browser.close()
        return result


def _go_to(page: Any, hook_point: str) -> None:
    """Show another hook point and a region's list; not timed, as the page must load the codes first."""
    box = {"left": 0.3, "top": 0.3, "right": 0.5, "bottom": 0.5}
    page.evaluate(
        "([hookPoint, region]) => view.store.set({hookPoint, region, codes: null, presence: null})",
        [hook_point, box],
    )
    page.wait_for_function("() => view.store.state.codes && view.store.state.presence", timeout=60_000)


def _change(chance: random.Random, change: int) -> tuple[str, dict[str, Any]]:
    feature = {"kind": "feature", "feature": chance.randrange(FEATURES)}
    if change % 2:
        return "step", {"step": chance.randrange(STEPS)}
    if change % 4:
        return "feature", {"subject": feature, "page": False}
    return "feature with its page", {"subject": feature, "page": True}


def _heap_megabytes(devtools: Any) -> float:
    """Return the memory of the page's JavaScript objects, DOM and typed arrays in MB."""
    usage = devtools.send("Runtime.getHeapUsage")
    names = ("usedSize", "embedderHeapUsedSize", "backingStorageSize")
    return float(sum(usage.get(name, 0) for name in names)) / 1e6


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "worst": round(ordered[-1], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
