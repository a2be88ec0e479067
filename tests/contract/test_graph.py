"""Whole graphs through ComfyUI's own executor: caching, errors in a node, and branches side by side."""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

Graph = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def core(comfyui: Path, pack: Any, mini: SimpleNamespace) -> Iterator[Any]:
    """ComfyUI's node list with the pack's nodes and a node that keeps what it is given."""
    import nodes

    extension = asyncio.run(pack().comfy_entrypoint())
    for node in asyncio.run(extension.get_node_list()):
        nodes.NODE_CLASS_MAPPINGS[node.GET_SCHEMA().node_id] = node
    nodes.NODE_CLASS_MAPPINGS["Keep"] = Keep
    loader = pack("comfy_revelio.host.mini.model")
    original, loader.load_mini = loader.load_mini, lambda: (mini.model, mini.clip, mini.vae)
    yield nodes
    loader.load_mini = original


@pytest.fixture(scope="module")
def saved(core: Any, pack: Any) -> str:
    """An SAE file in models/sae, by name."""
    import folder_paths

    make = pack("comfy_revelio.dictionary")
    directions = torch.nn.functional.normalize(torch.randn(64, 192), dim=1)
    stats = make.FeatureStats(torch.full((64,), 2.0), torch.full((64,), 0.1), None)
    dictionary = make.Dictionary(
        directions, torch.zeros(64), directions.clone(), torch.zeros(192), torch.zeros(192),
        make.Activation("topk_relu", 4), provenance=make.Provenance("middle_block.1"),
        extras=make.Extras(stats=stats),
    )  # fmt: skip
    folder = Path(folder_paths.models_dir) / "sae"
    folder.mkdir(parents=True, exist_ok=True)
    make.save_dictionary(dictionary, folder / "graph.safetensors")
    return "graph.safetensors"


@pytest.fixture
def new_executor(core: Any) -> Any:
    """new_executor() -> run; run(graph) -> what its Keep nodes got, which nodes ran, and what went wrong."""
    import execution

    def make() -> Any:
        server = SimpleNamespace(client_id="test", last_node_id=None, messages=[])
        server.send_sync = lambda event, data, sid=None: server.messages.append((event, data))
        executor = execution.PromptExecutor(
            server, cache_type=execution.CacheType.CLASSIC, cache_args={"ram": 0, "ram_inactive": 0, "lru": 0}
        )

        def run(graph: Graph) -> SimpleNamespace:
            prompt_id = str(uuid.uuid4())
            _, _, outputs, refused = asyncio.run(execution.validate_prompt(prompt_id, graph, None))
            Keep.got.clear()
            server.messages.clear()
            executor.execute(copy.deepcopy(graph), prompt_id, {"client_id": "test"}, outputs)
            errors = [data for event, data in server.messages if event == "execution_error"]
            ran = {data["node"] for event, data in server.messages if event == "executing"}
            return SimpleNamespace(
                kept=dict(Keep.got), ran=ran, refused=refused, error=errors[0] if errors else None
            )

        return run

    return make


@pytest.fixture
def run(new_executor: Any) -> Any:
    return new_executor()


class Keep:
    """An output node of the first kind: remembers its input under a name."""

    got: dict[str, Any] = {}  # noqa: RUF012
    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {}), "value": ("*", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Any) -> bool:
        return True

    def keep(self, name: str, value: Any) -> tuple[()]:
        Keep.got[name] = value
        return ()


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(saved: str, **sampler: Any) -> Graph:
    """Record, two samplers on the recorded model with a Collect each, a plain branch and a steered one."""
    settings = {"steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    common = {**settings, "positive": ["pos", 0], "negative": ["neg", 0], "latent_image": ["empty", 0]}
    return {
        "mini": node("RevelioMiniModel"),
        "sae": node("RevelioLoadSAE", sae=saved, hook_point=""),
        "pos": node("CLIPTextEncode", clip=["mini", 1], text="a portrait with glasses"),
        "neg": node("CLIPTextEncode", clip=["mini", 1], text=""),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "record": node("RevelioRecord", model=["mini", 0], sae=["sae", 0], hook_point=""),
        "first": node("KSampler", model=["record", 0], seed=1, **common),
        "second": node("KSampler", model=["record", 0], seed=2, **common),
        "collect1": node("RevelioCollect", latent=["first", 0], recorder=["record", 1]),
        "collect2": node("RevelioCollect", latent=["second", 0], recorder=["record", 1]),
        "maps": node(
            "RevelioFeatureMaps", trace=["collect1", 1], feature_numbers="", columns=2, role="cond", item=0,
            opacity=0.9,
        ),
        "top": node("RevelioTopFeatures", trace=["collect2", 1], count=3, by="peak", role="cond", step=-1),
        "plain": node("KSampler", model=["mini", 0], seed=1, **common),
        "steer": node(
            "RevelioSteerFeatures", model=["mini", 0], sae=["sae", 0], features="", selected=["top", 0],
            strength=3.0, start_percent=0.0, end_percent=1.0, role="cond", place="usual", mode="push",
        ),
        "steered": node("KSampler", model=["steer", 0], seed=1, **common),
        "k1": node("Keep", name="first", value=["collect1", 0]),
        "k2": node("Keep", name="second", value=["collect2", 0]),
        "k3": node("Keep", name="trace1", value=["collect1", 1]),
        "k4": node("Keep", name="trace2", value=["collect2", 1]),
        "k5": node("Keep", name="plain", value=["plain", 0]),
        "k6": node("Keep", name="steered", value=["steered", 0]),
    }  # fmt: skip


def samples(result: SimpleNamespace, name: str) -> Tensor:
    return result.kept[name]["samples"]


def test_branches_of_one_model(run: Any, new_executor: Any, saved: str, mini: SimpleNamespace) -> None:
    result = run(graph(saved))
    assert result.error is None
    assert torch.equal(samples(result, "first"), samples(result, "plain"))
    assert not torch.equal(samples(result, "steered"), samples(result, "plain"))
    traces = result.kept["trace1"], result.kept["trace2"]
    assert [len(trace.frames) for trace in traces] == [4, 4]
    assert not torch.equal(traces[0].frames[0].codes.values, traces[1].frames[0].codes.values)

    alone = {
        name: entry
        for name, entry in graph(saved).items()
        if name in {"mini", "pos", "neg", "empty", "plain", "k5"}
    }
    assert torch.equal(samples(new_executor()(alone), "plain"), samples(result, "plain"))


def test_a_new_seed_records_anew_with_the_record_node_cached(
    run: Any, saved: str, mini: SimpleNamespace
) -> None:
    first = run(graph(saved))
    changed = graph(saved)
    changed["first"]["inputs"]["seed"] = 77
    second = run(changed)
    assert "record" not in second.ran
    assert "second" not in second.ran  # the other sampler keeps its picture
    assert len(second.kept["trace1"].frames) == 4
    assert not torch.equal(samples(second, "first"), samples(first, "first"))
    kept = (first.kept["trace1"].frames[-1].codes.values, second.kept["trace1"].frames[-1].codes.values)
    assert not torch.equal(*kept)


def test_two_record_nodes_alike_have_their_own_recorders(run: Any, saved: str, mini: SimpleNamespace) -> None:
    double = graph(saved)
    double["record2"] = copy.deepcopy(double["record"])
    double["second"]["inputs"]["model"] = ["record2", 0]
    double["collect2"]["inputs"]["recorder"] = ["record2", 1]
    result = run(double)
    assert result.error is None
    assert len(result.kept["trace2"].frames) == 4


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("record", {"hook_point": "nowhere"}, "Unknown hook point 'nowhere'"),
        ("record", {"hook_point": "input_blocks.1.0"}, "has width 96"),
        ("steer", {"features": "64"}, "0 to 63"),
        ("steer", {"strength": float("nan")}, "finite number"),
        ("collect1", {"latent": ["plain", 0]}, "Nothing was recorded"),
        ("collect1", {"latent": ["empty", 0]}, "does not come straight|Nothing was recorded"),
    ],
)
def test_an_error_stops_its_node_and_the_next_prompt_runs(
    run: Any, saved: str, mini: SimpleNamespace, where: str, change: dict[str, Any], message: str
) -> None:
    broken = graph(saved)
    broken[where]["inputs"].update(change)
    result = run(broken)
    assert result.error is not None
    assert result.error["node_id"] == where
    assert re.search(message, result.error["exception_message"])
    assert run(graph(saved)).error is None


@pytest.mark.parametrize("name", ["missing.safetensors", "../../../etc/passwd"])
def test_a_missing_file_is_refused_before_anything_runs(
    run: Any, saved: str, mini: SimpleNamespace, name: str
) -> None:
    result = run(graph(name))
    details = result.refused["sae"]["errors"][0]["details"]
    assert "There is no SAE file" in details
    assert "models" in details
