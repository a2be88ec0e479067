"""What saved workflows rely on: the ids, inputs and outputs of all nodes, as stored in signatures.json.

Nodes may be added, and optional inputs at the end of a node: workflows saved before still load with every
value in its place. Any other change breaks some of them and fails here. Write the file anew when it is meant,
and after adding something, so that this is guarded as well:

    REVELIO_UPDATE_SIGNATURES=1 python3 dev.py test tests/contract/test_signatures.py
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

STORED = Path(__file__).with_name("signatures.json")
UPDATE = "REVELIO_UPDATE_SIGNATURES"
OF_THIS_MACHINE = {("RevelioLoadSAE", "sae"), ("RevelioLoadTrace", "trace")}
"""Lists of the files that are there."""
OF_COMFYUI = {("RevelioHarvest", "sampler_name"), ("RevelioHarvest", "scheduler")}
DETAILS = ("default", "options", "min", "max", "step", "multiline", "forceInput")
"""What decides which values an input takes, and whether it is a widget."""

Signature = dict[str, Any]


def signature(schema: Any) -> Signature:
    """One node: its inputs in order with all that decides about a value, and its outputs in order."""
    inputs = []
    for item in schema.inputs or []:
        details = {key: value for key, value in item.as_dict().items() if key in DETAILS}
        if (schema.node_id, item.id) in OF_THIS_MACHINE | OF_COMFYUI:
            details.pop("options")
            details.pop("default", None)
        inputs.append({"name": item.id, "type": item.get_io_type(), "optional": item.optional} | details)
    outputs = [
        {"type": item.get_io_type(), "name": item.display_name, "list": item.is_output_list}
        for item in schema.outputs
    ]
    return {
        "inputs": inputs,
        "outputs": outputs,
        "list": schema.is_input_list,
        "shows": schema.is_output_node,
    }


def broken(stored: dict[str, Signature], now: dict[str, Signature]) -> list[str]:
    """What workflows saved with the stored signatures would not find any more."""
    problems = [f"{name} is gone" for name in stored if name not in now]
    for name, was in stored.items():
        if name not in now:
            continue
        new = now[name]
        problems += [f"{name}: {key} changed" for key in ("outputs", "list", "shows") if was[key] != new[key]]
        for place, item in enumerate(was["inputs"]):
            if new["inputs"][place : place + 1] != [item]:
                problems.append(f"{name}: input {place + 1}, {item['name']}, changed")
        added = new["inputs"][len(was["inputs"]) :]
        required = [item["name"] for item in added if not item["optional"]]
        problems += [f"{name}: {item} is new and not optional" for item in required]
    return problems


@pytest.fixture(scope="module")
def current(pack: Any) -> dict[str, Signature]:
    nodes = asyncio.run(asyncio.run(pack().comfy_entrypoint()).get_node_list())
    schemas = [node.GET_SCHEMA() for node in nodes]
    return json.loads(json.dumps({schema.node_id: signature(schema) for schema in schemas}))


@pytest.fixture(scope="module")
def stored(current: dict[str, Signature]) -> dict[str, Signature]:
    if os.environ.get(UPDATE):
        STORED.write_text(json.dumps(current, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return json.loads(STORED.read_text(encoding="utf-8"))


def test_saved_workflows_still_load(stored: dict[str, Signature], current: dict[str, Signature]) -> None:
    problems = broken(stored, current)
    assert not problems, (
        f"{'; '.join(problems)}. Append optional inputs instead, or see the top of this file."
    )


def test_a_required_input_never_follows_an_optional_one(current: dict[str, Signature]) -> None:
    """ComfyUI shows the required ones first, whatever their order: values would land in other widgets."""
    for name, node in current.items():
        optional = [item["optional"] for item in node["inputs"]]
        assert optional == sorted(optional), name


def test_what_may_be_added(current: dict[str, Signature]) -> None:
    later = copy.deepcopy(current)
    later["RevelioNew"] = later["RevelioCollect"]
    later["RevelioCollect"]["inputs"].append(
        {"name": "extra", "type": "INT", "optional": True, "default": 0, "min": 0}
    )
    later["RevelioCollect"]["inputs"].append({"name": "more", "type": "MODEL", "optional": True})
    assert broken(current, later) == []


def _without_a_node(later: dict[str, Signature]) -> None:
    del later["RevelioCollect"]


def _in_another_order(later: dict[str, Signature]) -> None:
    later["RevelioFeatureMaps"]["inputs"][2:4] = later["RevelioFeatureMaps"]["inputs"][3:1:-1]


def _in_the_middle(later: dict[str, Signature]) -> None:
    new = {"name": "x", "type": "MODEL", "optional": True}
    later["RevelioFeatureMaps"]["inputs"].insert(3, new)


def _required_at_the_end(later: dict[str, Signature]) -> None:
    later["RevelioCollect"]["inputs"].append({"name": "x", "type": "MODEL", "optional": False})


def _change(key: str, value: Any) -> Any:
    def change(later: dict[str, Signature]) -> None:
        later["RevelioTopFeatures"]["inputs"][2][key] = value

    return change


def _output(later: dict[str, Signature]) -> None:
    later["RevelioTopFeatures"]["outputs"][0]["type"] = "STRING"


@pytest.mark.parametrize(
    "change",
    [
        _without_a_node,
        _in_another_order,
        _in_the_middle,
        _required_at_the_end,
        _change("name", "ranking"),
        _change("type", "STRING"),
        _change("options", ["peak"]),
        _change("default", "mean"),
        _change("optional", True),
        _output,
    ],
)
def test_what_breaks_workflows_is_found(current: dict[str, Signature], change: Any) -> None:
    later = copy.deepcopy(current)
    change(later)
    assert broken(current, later)
