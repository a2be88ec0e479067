"""Measure steering and write the results into docs/steering.md: `python -m lab.docs.steering_page`.

The command makes the tables and images on that page; the rest of the page is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from devtools.places import ROOT, find_places
from devtools.problem import Problem, exit_code
from devtools.process import call

from .tables import fill

PAGE = ROOT / "docs" / "steering.md"
IMAGES = ROOT / "docs" / "images" / "steering"


def blocks_of(report: dict[str, Any]) -> dict[str, str]:
    """Return the text of the page's generated blocks by name: sample, modes, roles, schedules, masks."""
    plain = report["plain"]
    sample = (
        f"Measured on {report['n_prompts']} prompts that name {report['concept']} and {report['n_prompts']} "
        f"that do not, with the SAE at `{report['hook_point']}`, {report['steps']} steps "
        f"({report['sampler']}), CFG {report['cfg']:g}. Unsteered, the judge sees {report['concept']} in "
        f"{plain['removal']['rate']:.0%} of the first and in {plain['addition']['rate']:.0%} of the second."
    )
    blocks = {"sample": sample}
    for group in ("modes", "roles", "schedules"):
        blocks[group] = "\n\n".join(
            f"{title}:\n\n{_table(report, group, way)}\n\n{_image(f'{group}_{way}', title)}"
            for way, title in (
                ("removal", f"Removing {report['concept']}"),
                ("addition", f"Adding {report['concept']}"),
            )
        )
    rows = [
        [
            f"`{row['hook_point']}`{more}",
            f"{row[f'{prefix}inside']:.4f}",
            f"{row[f'{prefix}outside']:.4f}",
            f"{row[f'{prefix}ratio']:.2f}",
        ]
        for prefix, more in (("", ""), ("held ", ", noise mask too"))
        for row in report["masks"]
    ]
    blocks["masks"] = _lines(["hook point", "change inside", "change outside", "outside / inside"], rows)
    blocks["masks"] += f"\n\n{_image('masks', 'Features added in the left half')}"
    return blocks


def _image(name: str, title: str) -> str:
    return f"![{title}](images/{IMAGES.name}/{name}.jpg)"


def _table(report: dict[str, Any], group: str, way: str) -> str:
    before = report["plain"][way]["others"]
    rows = [
        [
            row["name"],
            f"{row['strength']:g}",
            f"{row['rate']:.0%}",
            f"{(before - row['others']) * 100:.1f}",
            f"{row['pixel_change']:.3f}",
        ]
        for row in report[group]
        if row["direction"] == way
    ]
    seen = f"{report['concept']} seen"
    return _lines([group[:-1], "strength", seen, "cost (points)", "pixels changed by"], rows)


def _lines(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _make(prompts: int) -> int:
    places = find_places()
    file = ROOT / "output" / "steering.json"
    command = [places.python, "-m", "comfy_revelio", "evaluate", "steering", "--prompts", str(prompts)]
    command += ["--json", str(file), "--pictures", str(IMAGES)]
    if call(command, env=places.variables(), cwd=ROOT) != 0:
        raise Problem("Steering could not be measured; the reason is above.")
    blocks = blocks_of(json.loads(file.read_text(encoding="utf-8")))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    return 0


def main() -> int:
    line = argparse.ArgumentParser("lab.docs.steering_page", description=__doc__.splitlines()[0])
    line.add_argument("--prompts", type=int, default=16, help="prompts per direction")
    options = line.parse_args()
    return exit_code(lambda: _make(options.prompts))


if __name__ == "__main__":
    sys.exit(main())
