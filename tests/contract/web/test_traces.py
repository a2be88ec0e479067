"""What the explorer's pages can ask: the right bytes, and a refusal for everything else."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from safetensors.torch import load

PLACE = "middle_block.1"
KEY = "0" * 32
Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture
def registry(
    pack: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> ModuleType:
    """The module with nothing shown yet, and a temp folder of its own."""
    module = pack("comfy_revelio.host.web.trace_registry")
    monkeypatch.setattr(module, "SERVED_TRACES", module.TraceRegistry())
    monkeypatch.setattr(module.folder_paths, "get_temp_directory", lambda: str(tmp_path))
    return module


@pytest.fixture
def make_trace(pack: Callable[[str], ModuleType], sae: Callable[..., Any]) -> Callable[[int], Any]:
    """A small run of 3 steps on a grid of 4 by 6, of two pictures, with two roles."""
    recorder_of = pack("comfy_revelio.trace").RunRecorder

    def make(seed: int = 0) -> Any:
        dictionary = sae(concepts={"glasses": _concept(pack)}).dictionary
        recorder = recorder_of(3, (3.0, 2.0, 1.0, 0.0))
        generator = torch.Generator().manual_seed(seed)
        for step in range(3):
            for role in ("cond", "uncond"):
                tokens = torch.randn(2, 24, 192, generator=generator)
                recorder.add(PLACE, step, 0, 3.0 - step, 1.0, role, (4, 6), dictionary.encode(tokens))
        trace = recorder.finish({PLACE: dictionary})
        return trace, {PLACE: dictionary}

    return make


@pytest.fixture
def index(pack: Callable[[str], ModuleType], sae: Callable[..., Any], tmp_path: Path) -> Any:
    """The head of an index in which feature 7 has two examples of 8 by 8 pixels, and a label."""
    package = pack("comfy_revelio.analysis.index")
    starts = torch.zeros(97, dtype=torch.int64)
    starts[8:] = 2
    crops = torch.tensor([1, 2], dtype=torch.uint8)[:, None, None, None].expand(2, 8, 8, 3)
    dictionary = package.dictionary_id(sae().dictionary)
    made = package.FeatureIndex(
        PLACE, dictionary, (4, 6), 9, "made up", starts, torch.tensor([3.0, 2.0]),
        torch.tensor([4, 5]), torch.zeros(2, dtype=torch.int32), torch.ones(2),
        *(torch.zeros(96) for _ in range(3)), crops, {7: package.Label("round glasses", 2.5, "captions")},
    )  # fmt: skip
    package.write_index(made, tmp_path / "a.index.safetensors")
    return package.read_head(tmp_path / "a.index.safetensors")


def _concept(pack: Callable[[str], ModuleType]) -> Any:
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(1, 3, 4, 6, generator=generator)
    single_kind_reader = pack("comfy_revelio.dictionary.concept").single_kind_reader(192)
    return pack("comfy_revelio.dictionary").Concept((3, 5, 8), maps, maps, single_kind_reader)


@pytest.fixture
def ask(pack: Callable[[str], ModuleType], registry: ModuleType) -> Ask:
    """GET an address of the routes: its status and body."""
    table = web.RouteTableDef()
    pack("comfy_revelio.host.web.routes").add_to(table)

    def get(path: str, method: str = "GET", **options: Any) -> tuple[int, bytes]:
        async def once() -> tuple[int, bytes]:
            app = web.Application()
            app.add_routes(table)
            async with TestClient(TestServer(app)) as client:
                answer = await client.request(method, path, **options)
                return answer.status, await answer.read()

        return asyncio.run(once())

    return get


class TestAnswers:
    def test_a_description(self, ask: Ask, registry: ModuleType, make_trace: Any) -> None:
        shown = make_trace()
        status, body = ask(f"/revelio/traces/{registry.SERVED_TRACES.show(*shown)}")
        told = json.loads(body)
        (place,) = told["places"]
        assert (status, told["total_steps"], place["name"], place["grid"]) == (200, 3, PLACE, [4, 6])
        assert (place["roles"], place["items"], place["steps"]) == (["cond", "uncond"], 2, [0, 1, 2])
        assert place["concepts"] == [{"name": "glasses", "features": [3, 5, 8]}]
        assert place["labels"] == {"glasses": [3, 5]}

    @pytest.mark.parametrize("item", [0, 1])
    def test_codes_are_those_of_the_trace(
        self, ask: Ask, registry: ModuleType, make_trace: Any, item: int
    ) -> None:
        trace, dictionaries = make_trace()
        key = registry.SERVED_TRACES.show(trace, dictionaries)
        status, body = ask(f"/revelio/traces/{key}/codes?hook_point={PLACE}&role=uncond&item={item}")
        packed = load(body)
        assert status == 200
        for feature in (3, 5, 40):
            begin, end = (int(packed["starts"][feature * 3 + step]) for step in (0, 3))
            found = float(packed["values"][begin:end].float().sum() * packed["scale"][feature])
            expected = float(trace.feature_map(PLACE, feature, item=item, role="uncond").sum())
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)

    def test_maps_of_concepts(
        self, ask: Ask, registry: ModuleType, make_trace: Any, pack: Callable[[str], ModuleType]
    ) -> None:
        trace, dictionaries = make_trace()
        key = registry.SERVED_TRACES.show(trace, dictionaries)
        _, body = ask(f"/revelio/traces/{key}/concepts?hook_point={PLACE}&role=cond&item=1")
        packed = load(body)
        presence = pack("comfy_revelio.analysis.presence").concept_presence
        (expected,) = presence(trace.steps(PLACE), dictionaries[PLACE], 1)
        assert torch.allclose(packed["maps"][0] * packed["scale"][0], expected, atol=1e-3)

    def test_examples_of_one_feature(
        self, ask: Ask, registry: ModuleType, make_trace: Any, index: Any
    ) -> None:
        key = registry.SERVED_TRACES.show(*make_trace(), {PLACE: index})
        assert json.loads(ask(f"/revelio/traces/{key}")[1])["places"][0]["examples"] is True
        status, body = ask(f"/revelio/traces/{key}/examples?hook_point={PLACE}&feature=7")
        assert status == 200 and len(body) < 2000  # this feature's crops and nothing else
        found = load(body)
        assert set(found) == {"crops", "value"}
        assert found["value"].tolist() == [3.0, 2.0]
        assert found["crops"].shape == (2, 8, 8, 3) and int(found["crops"][1].min()) == 2
        assert b'"label":"round glasses"' in body and b'"score":"2.5"' in body
        status, body = ask(f"/revelio/traces/{key}/examples?hook_point={PLACE}&feature=8")
        assert status == 200 and len(load(body)["crops"]) == 0 and b"label" not in body

    def test_without_an_index_there_are_none(self, ask: Ask, registry: ModuleType, make_trace: Any) -> None:
        key = registry.SERVED_TRACES.show(*make_trace())
        assert json.loads(ask(f"/revelio/traces/{key}")[1])["places"][0]["examples"] is False
        status, body = ask(f"/revelio/traces/{key}/examples?hook_point={PLACE}&feature=7")
        assert status == 404 and b"no feature index" in body

    def test_an_index_that_is_gone_or_broken_is_told(
        self, ask: Ask, registry: ModuleType, make_trace: Any, index: Any
    ) -> None:
        key = registry.SERVED_TRACES.show(*make_trace(), {PLACE: index})
        path = f"/revelio/traces/{key}/examples?hook_point={PLACE}&feature=7"
        index.path.write_bytes(index.path.read_bytes()[:200])
        assert ask(path)[0] == 400
        index.path.unlink()
        assert ask(path)[0] == 400

    def test_neighbours(self, ask: Ask, registry: ModuleType, make_trace: Any) -> None:
        trace, dictionaries = make_trace()
        path = f"neighbours?hook_point={PLACE}&feature=7"
        status, body = ask(f"/revelio/traces/{registry.SERVED_TRACES.show(trace, dictionaries)}/{path}")
        found = json.loads(body)["neighbours"]
        assert (status, len(found)) == (200, 8)
        assert all(entry["feature"] != 7 for entry in found)
        assert json.loads(ask(f"/revelio/traces/{registry.SERVED_TRACES.show(trace, {})}/{path}")[1]) == {
            "neighbours": []
        }


QUESTION = f"hook_point={PLACE}&role=cond&item=0"
REFUSED = {
    "a key that nobody has": (f"/revelio/traces/{KEY}", 404),
    "a key that is none": ("/revelio/traces/../../etc/passwd", 404),
    "a key with an encoded path": ("/revelio/traces/..%2F..%2Fetc%2Fpasswd", 400),
    "a short key": ("/revelio/traces/abc", 400),
    "an unknown end": ("/revelio/traces/{key}/files", 404),
    "no question": ("/revelio/traces/{key}/codes", 400),
    "a question too much": (f"/revelio/traces/{{key}}/codes?{QUESTION}&path=/etc/passwd", 400),
    "a question twice": (f"/revelio/traces/{{key}}/codes?{QUESTION}&item=1", 400),
    "an unknown place": ("/revelio/traces/{key}/codes?hook_point=../x&role=cond&item=0", 404),
    "an unknown role": (f"/revelio/traces/{{key}}/codes?hook_point={PLACE}&role=x&item=0", 404),
    "an item that is no number": (f"/revelio/traces/{{key}}/codes?hook_point={PLACE}&role=cond&item=-1", 400),
    "an item too high": (f"/revelio/traces/{{key}}/concepts?hook_point={PLACE}&role=cond&item=2", 400),
    "a feature too high": (f"/revelio/traces/{{key}}/neighbours?hook_point={PLACE}&feature=96", 404),
    "examples of a feature too high": (
        f"/revelio/traces/{{key}}/examples?hook_point={PLACE}&feature=96",
        404,
    ),
    "examples of a path": ("/revelio/traces/{key}/examples?hook_point=../../x&feature=1", 404),
    "examples with a file": (
        f"/revelio/traces/{{key}}/examples?hook_point={PLACE}&feature=1&file=/etc/passwd",
        400,
    ),
    "examples of no feature": (f"/revelio/traces/{{key}}/examples?hook_point={PLACE}", 400),
    "examples of a word": (f"/revelio/traces/{{key}}/examples?hook_point={PLACE}&feature=..%2Fx", 400),
    "a number too long": (f"/revelio/traces/{{key}}/neighbours?hook_point={PLACE}&feature=1{'0' * 20}", 400),
    "a question too long": (f"/revelio/traces/{{key}}/codes?hook_point={'x' * 600}&role=cond&item=0", 414),
    "a description with a question": ("/revelio/traces/{key}?x=1", 400),
}


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSED)
    def test_with_4xx(self, ask: Ask, registry: ModuleType, make_trace: Any, case: str) -> None:
        path, expected = REFUSED[case]
        shown = make_trace()
        status, body = ask(path.replace("{key}", registry.SERVED_TRACES.show(*shown)))
        assert status == expected
        assert b"root:" not in body and b"Traceback" not in body

    def test_a_body_and_other_methods(self, ask: Ask, registry: ModuleType, make_trace: Any) -> None:
        path = f"/revelio/traces/{registry.SERVED_TRACES.show(*make_trace())}"
        assert ask(path, data=b"x" * 2**20)[0] == 413
        assert [ask(path, method)[0] for method in ("POST", "PUT", "DELETE")] == [405] * 3


class TestMemory:
    def test_the_same_objects_keep_their_key(self, registry: ModuleType, make_trace: Any) -> None:
        trace, dictionaries = make_trace()
        key = registry.SERVED_TRACES.show(trace, dictionaries)
        assert registry.SERVED_TRACES.show(trace, dict(dictionaries)) == key
        assert registry.SERVED_TRACES.show(trace, {}) != key

    def test_old_traces_wait_in_the_temp_folder(
        self, registry: ModuleType, make_trace: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(registry, "KEPT_IN_MEMORY", 2)
        monkeypatch.setattr(registry, "KEPT_IN_ALL", 3)
        shown = registry.SERVED_TRACES
        traces = [make_trace(seed) for seed in range(4)]
        keys = [shown.show(*trace) for trace in traces]
        assert [exhibit.trace is None for exhibit in shown._known.values()] == [True, False, False]
        with pytest.raises(KeyError):
            shown.find(keys[0])
        read, dictionaries = shown.find(keys[1])
        assert torch.equal(read.feature_map(PLACE, 3), traces[1][0].feature_map(PLACE, 3))
        assert dictionaries == traces[1][1]
        assert len(list((tmp_path / "revelio").iterdir())) == 2  # the one read again, and another

    def test_large_traces_leave_memory_first(
        self, registry: ModuleType, make_trace: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "KEPT_BYTES", 1)
        for seed in range(3):
            registry.SERVED_TRACES.show(*make_trace(seed))
        assert [e.trace is None for e in registry.SERVED_TRACES._known.values()] == [True, True, False]

    def test_an_emptied_temp_folder_is_no_error(
        self, registry: ModuleType, make_trace: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(registry, "KEPT_BYTES", 1)
        key = registry.SERVED_TRACES.show(*make_trace(0))
        registry.SERVED_TRACES.show(*make_trace(1))
        for file in (tmp_path / "revelio").iterdir():
            file.unlink()
        status, body = ask(f"/revelio/traces/{key}")
        assert (status, "run the workflow again" in json.loads(body)["error"]) == (404, True)

    def test_a_dictionary_is_let_go(self, registry: ModuleType, make_trace: Any, ask: Ask) -> None:
        """An SAE that was replaced in the workflow frees its memory; pages are told what to do."""
        trace, dictionaries = make_trace()
        address = f"/revelio/traces/{registry.SERVED_TRACES.show(trace, dictionaries)}"
        (dictionary,) = dictionaries.values()
        watched = weakref.ref(dictionary)
        (place,) = json.loads(ask(address)[1])["places"]
        assert place["missing"] == "" and place["concepts"]
        del dictionary
        dictionaries.clear()
        gc.collect()
        assert watched() is None
        (place,) = json.loads(ask(address)[1])["places"]
        assert place["missing"].startswith("The SAE of this run is no longer in memory; run the workflow")
        assert (place["concepts"], place["neighbours"]) == ([], False)
        for question in (f"concepts?{QUESTION}", f"neighbours?hook_point={PLACE}&feature=7"):
            status, body = ask(f"{address}/{question}")
            assert (status, json.loads(body)["error"]) == (410, place["missing"])
        assert ask(f"{address}/codes?{QUESTION}")[0] == 200


class TestNode:
    def test_what_is_chosen_goes_out(
        self, pack: Callable[[str], ModuleType], registry: ModuleType, make_trace: Any, sae: Any
    ) -> None:
        node = pack("nodes.explore").RevelioExplorer
        trace, dictionaries = make_trace()
        handle = sae()
        handle = type(handle)(dictionaries[PLACE], handle.patcher, "test.safetensors")
        done = node.execute(trace, "glasses:-4, 7:-1.5", "", "4x2:0,2,2,2,2", torch.rand(1, 8, 16, 3), handle)
        selection, mask = done.args
        assert (selection.features, selection.weights, selection.source) == ((7,), (-1.5,), PLACE)
        ((concept, weight),) = selection.concepts
        assert (concept.features, weight) == ((3, 5, 8), -4.0)
        assert mask.shape == (1, 8, 16) and float(mask[0, 0, 0]) == 1 and float(mask[0, 0, 15]) == 0
        (shown,) = done.ui["revelio_explorer"]
        assert registry.SERVED_TRACES.find(shown["trace"])[0] is trace
        assert len(shown["images"]) == 1 and shown["compare_trace"] is None

    def test_without_an_sae_a_concept_stays_one(
        self, pack: Any, registry: ModuleType, make_trace: Any
    ) -> None:
        """Steer Features, which has the SAE, does the same as with the SAE at the Explorer."""
        trace, dictionaries = make_trace()
        dictionary = dictionaries[PLACE]
        node = pack("nodes.explore").RevelioExplorer
        selection, mask = node.execute(trace, "glasses:-4, 7:0.5", PLACE, "").args
        assert (selection.features, selection.concepts, selection.source) == ((7,), (), PLACE)
        assert bool((mask == 1).all())
        known = pack("comfy_revelio.steering").parse_selection(
            "glasses:-4, 7:0.5", dictionary, dictionary.concepts
        )
        found = selection.resolved(dictionary, dictionary.concepts)
        assert (found.features, found.weights, found.concepts) == (
            known.features, known.weights, known.concepts
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"hook_point": "elsewhere"}, "chosen at elsewhere, but the trace was recorded at middle_block"),
            ({"chosen": "96"}, "0 to 95"),
            ({"painted": "4x2:9"}, "painted region"),
        ],
    )
    def test_mistakes(
        self, pack: Any, registry: ModuleType, make_trace: Any, change: dict[str, str], message: str
    ) -> None:
        trace, _ = make_trace()
        usual: dict[str, Any] = {"chosen": "", "hook_point": "", "painted": ""}
        with pytest.raises(ValueError, match=message):
            pack("nodes.explore").RevelioExplorer.execute(trace, **{**usual, **change})

    @pytest.mark.parametrize(
        "other",
        [
            {"hook_point": "output_blocks.3.1", "width": 96, "n": 48},
            {"hook_point": PLACE, "n": 48},
            {"hook_point": PLACE, "width": 96},
        ],
        ids=["another place", "another size", "another width"],
    )
    def test_an_sae_that_did_not_record_is_left_out(
        self, pack: Any, registry: ModuleType, make_trace: Any, sae: Any, ask: Ask, other: dict[str, Any]
    ) -> None:
        trace, _ = make_trace()
        node = pack("nodes.explore").RevelioExplorer
        (shown,) = node.execute(trace, "7:-1", PLACE, "", None, sae(**other), trace).ui["revelio_explorer"]
        (warning,) = shown["warnings"]
        assert f"reads {other['hook_point']} with" in warning
        assert f"recorded at {PLACE} (96 features); connect the SAE that Record Features used." in warning
        for end in (f"codes?{QUESTION}", f"concepts?{QUESTION}", f"neighbours?hook_point={PLACE}&feature=7"):
            assert ask(f"/revelio/traces/{shown['trace']}/{end}")[0] == 200

    def test_an_sae_that_calls_its_place_by_an_alias(
        self, pack: Any, registry: ModuleType, mini: Any, sae: Any, sample: Any
    ) -> None:
        """Two recorded places of one size: the name in the SAE's file tells which of them is its own."""
        by_alias, other = sae("mid_block.attentions.0"), sae("output_blocks.1.1")
        nodes = pack("nodes.observe")
        model, first = nodes.RevelioRecord.execute(mini.model, other).args
        model, second = nodes.RevelioRecord.execute(model, by_alias).args
        latent = {"samples": sample(model, steps=2)}
        _, trace = nodes.RevelioCollect.execute(latent, first).args
        _, trace = nodes.RevelioCollect.execute(latent, second, trace).args
        for handle, place in ((by_alias, PLACE), (other, "output_blocks.1.1")):
            done = pack("nodes.explore").RevelioExplorer.execute(trace, "7", "", "", None, handle)
            (shown,) = done.ui["revelio_explorer"]
            assert (done.args[0].source, shown["warnings"]) == (place, [])
            assert registry.SERVED_TRACES.find(shown["trace"])[1] == {place: handle.dictionary}
        assert trace.place("mid_block.attentions.0") == PLACE
