"""Write every text that repeats the node schemas: `python3 dev.py run -- python -m devtools.texts`.

Three texts are generated, so that a node has to be described only once, in its schema:

- `locales/en/nodeDefs.json`, where ComfyUI looks up names and tooltips;
- the table of inputs of each help page, between `<!-- inputs -->` and `<!-- /inputs -->`;
- the table of nodes in README.md, between `<!-- nodes -->` and `<!-- /nodes -->`.

`--check` writes nothing: it names the files that are out of date and, if there are any, exits with code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from .places import ROOT, find_places
from .problem import Problem, exit_code

COMMAND = "python3 dev.py run -- python -m devtools.texts"
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"
PAGES = ROOT / "web" / "docs"
README = ROOT / "README.md"
MENUS = ("Load", "Observe", "See", "Find", "Steer", "Learn")
"""Revelio's submenus in ComfyUI's node menu, in the order in which users need them."""
LISTS_OF_FILES = {("RevelioLoadSAE", "sae"), ("RevelioLoadTrace", "trace")}
"""Inputs whose default is not shown: it is the first file found on the machine."""
LARGE = 1000
"""The table does not show limits of this size or larger, which only exclude nonsense values."""


def main(arguments: list[str] | None = None) -> int:
    """Write the texts, or check them, and return the exit code."""
    line = argparse.ArgumentParser("python -m devtools.texts", description=__doc__)
    line.add_argument("--check", action="store_true", help="only name the files that are out of date")
    options = line.parse_args(arguments)
    return exit_code(lambda: _run(check=options.check))


def _run(*, check: bool) -> int:
    stale = outdated(load_schemas())
    for path, text in stale.items():
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"Run {COMMAND}")
    return int(check and bool(stale))


def outdated(schemas: list[Any]) -> dict[Path, str]:
    """Return the files that do not match the schemas, each with the text that it should contain."""
    texts = {ENGLISH: english(schemas)}
    for schema in schemas:
        page = PAGES / f"{schema.node_id}.md"
        texts[page] = filled(
            page, "inputs", input_table(schema) if schema.inputs else "This node has no inputs."
        )
    texts[README] = filled(README, "nodes", node_table(schemas))
    return {
        path: text for path, text in texts.items() if not path.is_file() or path.read_text("utf-8") != text
    }


def english(schemas: list[Any]) -> str:
    """Return the English locale file: the texts of the schemas under the keys that ComfyUI's page uses."""
    entries = {}
    for schema in schemas:
        entry: dict[str, Any] = {"display_name": schema.display_name, "description": schema.description}
        inputs = {item.id: {"name": label(item), "tooltip": item.tooltip} for item in schema.inputs or []}
        if inputs:
            entry["inputs"] = inputs
        entry["outputs"] = {
            str(number): {"name": item.display_name, "tooltip": item.tooltip}
            for number, item in enumerate(schema.outputs)
        }
        entries[schema.node_id] = entry
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def label(item: Any) -> str:
    """Return the name that the node shows for an input."""
    return item.display_name or item.id.replace("_", " ")


def input_table(schema: Any) -> str:
    """Return a Markdown table of a node's inputs: name, purpose, default with its limits."""
    rows = [
        f"| **{label(item)}** | {_cell(item.tooltip)} | {_cell(_default(schema.node_id, item))} |"
        for item in schema.inputs
    ]
    return "\n".join(["| input | what it is for | default |", "|---|---|---|", *rows])


def node_table(schemas: list[Any]) -> str:
    """Return a Markdown table of the nodes by menu, each with the first sentence of its description."""
    rows = []
    for menu in MENUS:
        nodes = [schema for schema in schemas if schema.category == f"Revelio/{menu}"]
        for number, schema in enumerate(nodes):
            name = schema.display_name.removesuffix(" (Revelio)")
            page = f"web/docs/{schema.node_id}.md"
            first = re.split(r"(?<=\.) (?=[A-Z])", schema.description)[0]
            rows.append(f"| {'' if number else menu} | [**{name}**]({page}) | {_cell(first)} |")
    if len(rows) != len(schemas):
        raise Problem(
            f"A node is in none of the menus {', '.join(MENUS)}; add its menu in devtools/texts.py."
        )
    return "\n".join(["| menu | node | what it does |", "|---|---|---|", *rows])


def filled(path: Path, name: str, block: str) -> str:
    """Return the text of a file after putting `block` between the two markers called `name`."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(start) != 1 or text.count(end) != 1:
        raise Problem(f"{path.relative_to(ROOT)} needs the lines <!-- {name} --> and <!-- /{name} --> once.")
    before, _, rest = text.partition(start)
    return before + start + block + "\n" + end + rest.partition(end)[2]


def load_schemas() -> list[Any]:
    """Load the schemas of all nodes, in the pack's order, through the entry point that ComfyUI calls."""
    # if the pack were on the import path, its nodes/ would hide ComfyUI's nodes.py
    sys.path[:] = [
        str(find_places().comfyui),
        *(entry for entry in sys.path if Path(entry).resolve() != ROOT),
    ]
    options = importlib.import_module("comfy.cli_args").args
    options.cpu = True
    spec = importlib.util.spec_from_file_location(
        "revelio_texts", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = pack
    spec.loader.exec_module(pack)
    with tempfile.TemporaryDirectory() as empty:
        options.base_directory = empty
        extension = asyncio.run(pack.comfy_entrypoint())
        return [node.GET_SCHEMA() for node in asyncio.run(extension.get_node_list())]


def _default(node_id: str, item: Any) -> str:
    """Return the default with its limits; for an input that must be connected, "required" or "optional"."""
    details = item.as_dict()
    if (node_id, item.id) in LISTS_OF_FILES:
        return ""
    if "default" not in details or details.get("forceInput"):
        return "optional" if item.optional else "required"
    value = details["default"]
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return f"{value:g}{_limits(details)}" if abs(value) < 1e6 else f"{value}"


def _limits(details: dict[str, Any]) -> str:
    """Return the meaningful limits of a number: " (1 to 32)", " (at least 1)" or ""."""
    least, most = details.get("min"), details.get("max")
    if least is None or most is None or least <= -LARGE:
        return ""
    if most < LARGE:
        return f" ({least:g} to {most:g})"
    return f" (at least {least:g})" if least > 0 else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
