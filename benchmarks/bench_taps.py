"""Measure how much recording and steering slow down sampling, by alternating runs with and without them.

Prints the ratios of median times; a cost below 1.10 is not noticeable. `python3 dev.py bench` runs this.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else 9

    # the pack's folder has a `nodes/` that must not hide ComfyUI's module of that name
    sys.path.append(str(ROOT))
    from comfy_revelio.host.standalone import use_comfyui

    use_comfyui()
    from comfy_revelio.host.mini.model import load_mini
    from comfy_revelio.host.record.features import record
    from comfy_revelio.host.record.generation import encode, sample
    from comfy_revelio.host.steering import steer
    from comfy_revelio.steering import Intervention, Selection
    from lab.evaluate.measure import bundled_saes

    model, clip, _ = load_mini()
    sae = next(s for s in bundled_saes() if not s.dictionary.hook_point.startswith("layers."))
    positive, negative = encode(clip, ["pixel art of a person with glasses"]), encode(clip, [""])

    def run(chosen: Any) -> Callable[[], object]:
        return lambda: sample(chosen, positive, negative, [1], steps=20)

    recorded, _ = record(model, sae)
    push = Intervention(sae.dictionary, Selection((0, 1, 2), (1.0, 1.0, 1.0)), -1.0)
    cases = {"plain": run(model), "recorded": run(recorded), "steered": run(steer(model, push, sae))}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if turn:  # the first turn only warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: round(median / medians["plain"], 3) for name, median in medians.items()}
    print(json.dumps({"sae": sae.title, "rounds": rounds, "ratio_to_plain": ratios}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
