"""Write measured metrics into README and model cards: `python -m lab.docs.tables output/evaluation.json`.

`python -m comfy_revelio evaluate mini --json FILE` writes that file. Each document has blocks between
`<!-- figures: NAME -->` and `<!-- /figures -->`; this command replaces the text inside them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from devtools.places import ROOT

DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "sae_weights" / "README.md",
    ROOT / "sae_weights" / "revelio_mini" / "README.md",
)


def fill(text: str, blocks: dict[str, str]) -> str:
    """Return `text` with the content of each block replaced by the entry in `blocks` that has its name."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- figures: {match[1]} -->\n{blocks[match[1]]}\n<!-- /figures -->"

    return re.sub(r"<!-- figures: (\w+) -->\n.*?\n<!-- /figures -->", replace, text, flags=re.DOTALL)


def blocks_of(report: dict[str, Any]) -> dict[str, str]:
    """Return the text of the three blocks by name: mini (prompt accuracy), saes, steering."""
    return {"mini": _mini(report), "saes": _saes(report), "steering": _steering(report["steering"])}


def _mini(report: dict[str, Any]) -> str:
    mini, judge = report["mini_model"], report["judge"]
    rows = [
        [name, f"{share:.1%}", f"{mini['chance'][name]:.1%}", f"{judge['by_attribute'][name]:.1%}"]
        for name, share in mini["by_attribute"].items()
    ]
    rows.append(["**mean**", f"**{mini['prompt_accuracy']:.1%}**", "", f"{judge['accuracy']:.1%}"])
    head = ["attribute", "prompted value found", "best constant answer", "judge on renders"]
    return (
        f"{mini['n_prompts']} held-out prompts with combinations of attributes never seen in training, "
        f"{mini['steps']} steps ({mini['sampler']}), CFG {mini['cfg']:g}. The judge's own accuracy was "
        f"measured on {judge['n_renders']} renders.\n\n" + table(head, rows)
    )


def _saes(report: dict[str, Any]) -> str:
    rows = [
        [
            f"`{sae['name']}`",
            f"`{sae['hook_point']}`",
            str(sae["n_features"]),
            str(sae["k"]),
            f"{sae['explained_variance']:.3f}",
            f"{sae['l0']:.1f}",
            f"{sae['dead_share']:.1%}",
        ]
        for sae in report["saes"]
    ]
    return table(["file", "hook point", "features", "k", "explained variance", "L0", "dead"], rows)


def _steering(steering: dict[str, Any]) -> str:
    best, points = steering["best_hook_point"], dict(steering["hook_points"])
    tried = points.pop("n_per_concept")
    methods = {name: row["summary"] for name, row in steering.items() if name.startswith("steer_")}
    names = {
        "steer_features": f"Steer Features at `{best}`",
        "steer_concept_contrast": "Steer Concept, contrast",
        "steer_concept_paper": "Steer Concept, paper",
    }
    head = ["removed (relative)", "cost (points)", "added (points)", "cost (points)"]
    rows = [[names[name], *_effect(summary)] for name, summary in methods.items()]
    others = [[f"`{point}`", *_effect(summary)] for point, summary in points.items()]
    return (
        f"{steering['n_per_concept']} prompts per concept and direction. Cost is the drop in mean accuracy "
        "over the other attributes that the prompt names, in percentage points.\n\n"
        f"{table(['method', *head], rows)}\n\n"
        f"The hook point of Steer Features was chosen on {tried} other prompts per concept and direction:\n\n"
        + table(["hook point", *head], others)
    )


def _effect(summary: dict[str, float]) -> list[str]:
    return [
        f"{summary['removal_relative']:.0%}",
        f"{summary['removal_cost'] * 100:.1f}",
        f"{summary['addition_points'] * 100:.0f}",
        f"{summary['addition_cost'] * 100:.1f}",
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    if len(sys.argv) != 2:
        print("Name the evaluation file: python -m lab.docs.tables output/evaluation.json", file=sys.stderr)
        return 2
    blocks = blocks_of(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    for document in DOCUMENTS:
        document.write_text(fill(document.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
