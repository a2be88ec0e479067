"""The nodes as ComfyUI sees them: schemas, help, translations, and what they say about bad input."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from devtools.texts import COMMAND, ENGLISH, outdated

ROOT = Path(__file__).resolve().parents[2]
NODES = {
    "RevelioMiniModel": "Revelio/Load",
    "RevelioLoadSAE": "Revelio/Load",
    "RevelioSaveTrace": "Revelio/Load",
    "RevelioLoadTrace": "Revelio/Load",
    "RevelioRecord": "Revelio/Observe",
    "RevelioCollect": "Revelio/Observe",
    "RevelioRecordImage": "Revelio/Observe",
    "RevelioRecordText": "Revelio/Observe",
    "RevelioRecordWords": "Revelio/Observe",
    "RevelioRecordPrompts": "Revelio/Observe",
    "RevelioTopFeatures": "Revelio/See",
    "RevelioFeatureMaps": "Revelio/See",
    "RevelioWordMaps": "Revelio/See",
    "RevelioFeatureTimeline": "Revelio/See",
    "RevelioFeatureAnimation": "Revelio/See",
    "RevelioExplorer": "Revelio/See",
    "RevelioSteerFeatures": "Revelio/Steer",
    "RevelioSteerConcept": "Revelio/Steer",
    "RevelioSteerConditioning": "Revelio/Steer",
    "RevelioTransferFeatures": "Revelio/Steer",
    "RevelioStrengthSweep": "Revelio/Steer",
    "RevelioImageGrid": "Revelio/See",
    "RevelioFindFeatures": "Revelio/Find",
    "RevelioFindConcept": "Revelio/Find",
    "RevelioSelectFeatures": "Revelio/Find",
    "RevelioLabelFeatures": "Revelio/Find",
    "RevelioHarvest": "Revelio/Learn",
    "RevelioTrainSAE": "Revelio/Learn",
    "RevelioConceptVector": "Revelio/Learn",
}


PAGES = ROOT / "web" / "docs"


def translations(language: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def nodes(pack: Any) -> dict[str, Any]:
    """The node classes by id, from the entry point that ComfyUI calls."""
    extension = asyncio.run(pack().comfy_entrypoint())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


class TestSchemas:
    def test_ids_and_places(self, nodes: dict[str, Any]) -> None:
        assert {node_id: node.GET_SCHEMA().category for node_id, node in nodes.items()} == NODES

    @pytest.mark.parametrize("node_id", NODES)
    def test_everything_is_explained(self, nodes: dict[str, Any], node_id: str) -> None:
        schema = nodes[node_id].GET_SCHEMA()
        assert len(schema.description) > 40
        assert "Revelio" in schema.display_name
        for item in [*(schema.inputs or []), *schema.outputs]:
            assert item.tooltip and item.tooltip.strip().endswith("."), item.id
        nodes[node_id].GET_NODE_INFO_V1()

    def test_what_people_search_for_finds_nodes(self, nodes: dict[str, Any]) -> None:
        """Words that are not in the names; versions of ComfyUI that know aliases hand them to the page."""
        found: dict[str, set[str]] = {}
        for node_id, node in nodes.items():
            schema = node.GET_SCHEMA()
            assert schema.search_aliases, node_id
            told = node.GET_NODE_INFO_V1().get("search_aliases", schema.search_aliases)
            assert told == schema.search_aliases
            for word in schema.search_aliases:
                found.setdefault(word, set()).add(node_id)
        assert {"RevelioExplorer", "RevelioFeatureMaps"} <= found["xray"] & found["attention map"]
        assert {"RevelioExplorer", "RevelioTrainSAE"} <= found["interpretability"]
        assert {"RevelioSteerFeatures", "RevelioSteerConcept", "RevelioFindConcept"} <= found["concept"]
        assert "RevelioWordMaps" in found["attention map"]

    @pytest.mark.parametrize("node_id", NODES)
    def test_help_page(self, nodes: dict[str, Any], node_id: str) -> None:
        """What the node is for, how to use it, its inputs, the common mistake; images are beside the page."""
        schema = nodes[node_id].GET_SCHEMA()
        page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n")
        parts = ["## How to use it\n", "## Inputs\n\n<!-- inputs -->\n", "## Common mistake"]
        found = [page.find(f"\n{part}") for part in parts]
        assert found[0] > 100 and found == sorted(found)
        images = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", page)
        assert images, "the page has no image"
        for words, name in images:
            assert words, f"{name} has no words for those who cannot see it"
            assert Path(name).name == name, f"{name} is not beside the page"
            with Image.open(PAGES / name) as image:
                image.load()
                assert min(image.size) >= 60 and max(image.size) >= 240

    def test_no_page_and_no_image_is_left_over(self) -> None:
        pages = {file.stem: file.read_text(encoding="utf-8") for file in PAGES.glob("*.md")}
        assert set(pages) == set(NODES)
        for file in PAGES.iterdir():
            assert file.suffix == ".md" or any(f"({file.name})" in page for page in pages.values()), file.name

    @pytest.mark.parametrize("language", ["en", "zh"])
    @pytest.mark.parametrize("node_id", NODES)
    def test_translations_name_the_real_inputs_and_outputs(
        self, nodes: dict[str, Any], language: str, node_id: str
    ) -> None:
        entry, schema = translations(language)[node_id], nodes[node_id].GET_SCHEMA()
        assert entry["display_name"].strip() and entry["description"].strip()
        inputs, outputs = entry.get("inputs", {}), entry.get("outputs", {})
        assert set(inputs) == {item.id for item in schema.inputs or []}
        assert set(outputs) == {str(number) for number in range(len(schema.outputs))}
        for name, texts in [*inputs.items(), *outputs.items()]:
            assert texts["name"].strip() and texts["tooltip"].strip(), name

    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_every_node_of_the_pack_is_translated_and_no_other(self, language: str) -> None:
        assert set(translations(language)) == set(NODES)

    @pytest.mark.parametrize("node_id", NODES)
    def test_chinese_is_not_english(self, node_id: str) -> None:
        english, chinese = translations("en")[node_id], translations("zh")[node_id]
        assert chinese["description"] != english["description"]
        for kind in ("inputs", "outputs"):
            for name, texts in chinese.get(kind, {}).items():
                assert texts["tooltip"] != english[kind][name]["tooltip"], name

    @pytest.mark.parametrize("node_id", NODES)
    def test_chinese_has_the_numbers_and_choices_of_the_english(
        self, nodes: dict[str, Any], node_id: str
    ) -> None:
        """What is most easily forgotten when an English tooltip changes."""
        for item in nodes[node_id].GET_SCHEMA().inputs or []:
            chinese = translations("zh")[node_id]["inputs"][item.id]["tooltip"]
            choices = [str(choice) for choice in item.as_dict().get("options") or []]
            expected = [choice for choice in choices if re.search(rf"\b{choice}( =|:)", item.tooltip)]
            expected += re.findall(r"-?\d+(?:\.\d+)?", item.tooltip)
            assert [word for word in expected if word not in chinese] == [], item.id

    def test_generated_texts_are_those_of_the_schemas(self, nodes: dict[str, Any]) -> None:
        """The English locale file, the tables of inputs in the help pages, and README's table of nodes."""
        stale = outdated([node.GET_SCHEMA() for node in nodes.values()])
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        assert not stale, f"Out of date: {names}. Run {COMMAND}"

    def test_a_changed_tooltip_makes_the_generated_texts_stale(self, nodes: dict[str, Any]) -> None:
        schemas = [node.GET_SCHEMA() for node in nodes.values()]
        (changed,) = (schema for schema in schemas if schema.node_id == "RevelioCollect")
        changed.inputs[0].tooltip += " And more."
        assert set(outdated(schemas)) == {ENGLISH, PAGES / "RevelioCollect.md"}


class TestStart:
    def test_the_entry_point_imports_nothing_heavy(self) -> None:
        """Importing the pack is what every start of ComfyUI pays, whether its nodes are used or not."""
        code = (
            "import sys, importlib.util as u; before = set(sys.modules);"
            f"s = u.spec_from_file_location('pack', {str(ROOT / '__init__.py')!r});"
            "m = u.module_from_spec(s); s.loader.exec_module(m);"
            "assert m.WEB_DIRECTORY == './web'; new = set(sys.modules) - before;"
            "assert not new & {'torch', 'numpy', 'PIL', 'comfy'}, new"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_the_nodes_import_no_heavy_library(self, comfyui: Path) -> None:
        """With what ComfyUI has loaded anyway: none of the heavy libraries that only some nodes need."""
        heavy = {"transformers", "diffusers", "matplotlib", "sklearn", "scipy.stats", "PIL.ImageDraw"}
        code = f"""
import sys, asyncio, importlib.util as u
sys.path.insert(0, {str(comfyui)!r})
import comfy.cli_args; comfy.cli_args.args.cpu = True
import comfy.model_patcher, folder_paths, comfy_api.latest
before = set(sys.modules)
root = {str(ROOT)!r}
s = u.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
m = u.module_from_spec(s); sys.modules["pack"] = m; s.loader.exec_module(m)
nodes = asyncio.run(asyncio.run(m.comfy_entrypoint()).get_node_list())
assert nodes
new = {{name for name in set(sys.modules) - before}}
assert not new & {heavy!r}, new & {heavy!r}
"""
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    def test_a_failing_import_is_logged_with_its_place(
        self, pack: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(sys.modules, f"{pack().__name__}.nodes.extension", None)
        with pytest.raises(ImportError):
            asyncio.run(pack().comfy_entrypoint())
        assert "Traceback" in caplog.text


class TestBadInput:
    """One sentence each: what is wrong, and what would be right."""

    def test_the_wrong_width(self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any) -> None:
        for node, more in (("RevelioRecord", {}), ("RevelioSteerFeatures", STEERING)):
            with pytest.raises(ValueError, match=r"width 640.*middle_block.1.*width 192") as problem:
                nodes[node].execute(mini.model, sae(width=640), **more)
            assert_one_sentence(problem)

    def test_an_unknown_hook_point(self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any) -> None:
        with pytest.raises(ValueError, match=r"'midle_block.1'.*middle_block.1") as problem:
            nodes["RevelioRecord"].execute(mini.model, sae(), "midle_block.1")
        assert_one_sentence(problem)

    def test_an_sae_of_a_text_encoder(self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any) -> None:
        with pytest.raises(ValueError, match="use it with Steer Concept") as problem:
            nodes["RevelioRecord"].execute(mini.model, sae("layers.3"))
        assert_one_sentence(problem)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"features": "96"}, "0 to 95"),
            ({"features": "spectacles"}, "glasses"),
            ({"strength": float("nan")}, "finite number"),
            ({"start_percent": 0.8, "end_percent": 0.2}, "start before end"),
            ({"mask": torch.zeros(1, 2, 8, 8)}, "batch x height x width"),
            ({"mask": torch.full((8, 8), float("nan"))}, "not finite"),
        ],
        ids=["feature", "label", "nan", "percents", "mask rank", "mask values"],
    )
    def test_steering(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message) as problem:
            nodes["RevelioSteerFeatures"].execute(mini.model, sae(), **{**STEERING, **change})
        assert_one_sentence(problem)

    def test_seeing(self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, sample: Any) -> None:
        model, recorder = nodes["RevelioRecord"].execute(mini.model, sae()).args
        latent = {"samples": sample(model, steps=2)}
        same, trace = nodes["RevelioCollect"].execute(latent, recorder).args
        assert same is latent
        for change, message in (
            ({"feature_numbers": "96"}, "0 to 95"),
            ({"feature_numbers": "hat"}, "Unknown feature 'hat'.*glasses"),
            ({"role": "cond2"}, "cond2"),
            ({"item": 1}, "item"),
        ):
            with pytest.raises(ValueError, match=message) as problem:
                nodes["RevelioFeatureMaps"].execute(trace, **{**SEEING, **change})
            assert_one_sentence(problem)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((0, 64, 64, 3), "batch of images is empty"),
            ((1, 64, 64, 1), "RGB or RGBA image"),
            ((1, 0, 0, 3), "RGB or RGBA image"),
            ((64, 64, 3), "RGB or RGBA image"),
        ],
        ids=["none", "grey", "no pixels", "no batch"],
    )
    def test_what_is_no_picture(
        self,
        nodes: dict[str, Any],
        mini: SimpleNamespace,
        sae: Any,
        sample: Any,
        prompts: Any,
        shape: tuple[int, ...],
        message: str,
    ) -> None:
        """The same sentence wherever a picture comes in."""
        model, recorder = nodes["RevelioRecord"].execute(mini.model, sae()).args
        trace = nodes["RevelioCollect"].execute({"samples": sample(model, steps=1)}, recorder).args[1]
        image = torch.rand(shape)
        looking = {"timesteps": "25", "seed": 0, "positive": prompts("")}
        for node, given in (
            (
                "RevelioExplorer",
                {"trace": trace, "chosen": "", "hook_point": "", "painted": "", "image": image},
            ),
            ("RevelioFeatureMaps", {"trace": trace, **SEEING, "image": image}),
            (
                "RevelioRecordImage",
                {"model": mini.model, "vae": mini.vae, "sae": sae(), **looking, "image": image},
            ),
        ):
            with pytest.raises(ValueError, match=message) as problem:
                nodes[node].execute(**given)
            assert_one_sentence(problem)

    def test_a_picture_smaller_than_a_cell_of_the_vae(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, prompts: Any
    ) -> None:
        tiny = {"image": torch.rand(1, 4, 64, 3), "positive": prompts("")}
        with pytest.raises(ValueError, match=r"64 x 4 pixels.*at least \d+ x \d+") as problem:
            nodes["RevelioRecordImage"].execute(mini.model, mini.vae, sae(), **tiny, timesteps="25", seed=0)
        assert_one_sentence(problem)

    def test_a_latent_of_picture_and_sound(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, sample: Any
    ) -> None:
        """Models such as LTX-2 put out both in one, which no recorder of another model has seen."""
        nested = pytest.importorskip("comfy.nested_tensor").NestedTensor
        model, recorder = nodes["RevelioRecord"].execute(mini.model, sae()).args
        sample(model, steps=1)
        latent = {"samples": nested([torch.zeros(1, 4, 1, 8, 8), torch.zeros(1, 8, 16)])}
        with pytest.raises(ValueError, match="does not come straight from a sampler") as problem:
            nodes["RevelioCollect"].execute(latent, recorder)
        assert_one_sentence(problem)


class TestWork:
    def test_observe_and_see(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, sample: Any
    ) -> None:
        model, recorder = nodes["RevelioRecord"].execute(mini.model, sae()).args
        _, trace = nodes["RevelioCollect"].execute({"samples": sample(model, size=(8, 12))}, recorder).args
        features, table = nodes["RevelioTopFeatures"].execute(trace, 5, "distinct", "cond", -1).args
        assert len(features.features) == 5
        assert str(features.features[0]) in table
        figure, masks = (
            nodes["RevelioFeatureMaps"]
            .execute(trace, **SEEING, image=torch.rand(1, 64, 96, 3), features=features)
            .args
        )
        assert masks.shape == (5, 64, 96)
        assert figure.ndim == 4
        assert figure.shape[3] == 3
        assert 0 <= float(figure.min()) <= float(figure.max()) <= 1
        by_itself, labelled = (
            nodes["RevelioFeatureMaps"].execute(trace, **{**SEEING, "feature_numbers": names}).args[0]
            for names in ("", "Glasses, 1")
        )
        assert by_itself.shape[1] > labelled.shape[1]

    def test_the_second_place_of_a_trace(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, sample: Any
    ) -> None:
        """What Top Features finds there, Feature Maps shows there, as in a trace of that place alone."""
        model, first = nodes["RevelioRecord"].execute(mini.model, sae()).args
        model, second = nodes["RevelioRecord"].execute(model, sae("output_blocks.1.1", n=48)).args
        latent = {"samples": sample(model, steps=2)}
        trace = nodes["RevelioCollect"].execute(latent, first).args[1]
        both = trace.joined(nodes["RevelioCollect"].execute(latent, second).args[1])
        alone = nodes["RevelioCollect"].execute(latent, second).args[1]
        found = [
            nodes["RevelioTopFeatures"].execute(run, 3, "peak", "cond", -1, where).args[0]
            for run, where in ((both, "output_blocks.1.1"), (alone, ""))
        ]
        assert found[0] == found[1] and found[0].source == "output_blocks.1.1"
        figures = [
            nodes["RevelioFeatureMaps"].execute(run, **SEEING, features=found[0]).args[0]
            for run in (both, alone)
        ]
        assert torch.equal(*figures)
        with pytest.raises(
            ValueError, match=r"features belong to output_blocks\.1\.1.*recorded at middle_block"
        ):
            nodes["RevelioFeatureMaps"].execute(trace, **SEEING, features=found[0])

    def test_the_difference_of_two_runs(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, sample: Any, prompts: Any
    ) -> None:
        model, recorder = nodes["RevelioRecord"].execute(mini.model, sae()).args
        traces = [
            nodes["RevelioCollect"].execute({"samples": sample(model, **run)}, recorder).args[1]
            for run in ({}, {"positive": prompts("an orange hat")}, {"size": (8, 12)}, {"steps": 2})
        ]
        maps = nodes["RevelioFeatureMaps"]
        figure, masks = maps.execute(traces[0], **SEEING, view="difference", compare_trace=traces[1]).args
        assert figure.shape[0] == 1 and 1 <= len(masks) <= 8 and masks.max() == 1
        for second, words in ((traces[2], "4 x 4 and 4 x 6"), (traces[3], "4 and 2"), (None, "two runs")):
            with pytest.raises(ValueError, match=words) as problem:
                maps.execute(traces[0], **SEEING, view="difference", compare_trace=second)
            assert_one_sentence(problem)

    def test_over_time(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, sample: Any, tmp_path: Path
    ) -> None:
        model, recorder = nodes["RevelioRecord"].execute(mini.model, sae()).args
        _, trace = nodes["RevelioCollect"].execute({"samples": sample(model, size=(8, 12))}, recorder).args
        timeline = nodes["RevelioFeatureTimeline"]
        figure, numbers = timeline.execute(trace, "glasses", "share", "uncond", 0, compare_trace=trace).args
        assert figure.ndim == 4 and figure.shape[3] == 3
        assert len(numbers.splitlines()) == 1 + 2 * 2 * 4

        played = nodes["RevelioFeatureAnimation"].execute(
            trace, "glasses", 4.0, 1.0, True, "cond", 0, 0.9, image=torch.rand(1, 64, 96, 3)
        )
        video, frames = played.args
        assert frames.shape[0] == 4 + 4 and frames.shape[1] % 2 == frames.shape[2] % 2 == 0
        assert torch.equal(frames[3], frames[7])
        assert video.get_components().frame_rate == 4
        video.save_to(str(tmp_path / "film.mp4"))
        assert (tmp_path / "film.mp4").stat().st_size > 1000
        import folder_paths

        (shown,) = played.ui["images"]
        file = Path(folder_paths.get_temp_directory()) / shown["subfolder"] / shown["filename"]
        with Image.open(file) as moving:
            assert moving.n_frames == 4 and played.ui["animated"] == (True,)

    def test_written_and_connected_features_are_steered_together(
        self, nodes: dict[str, Any], mini: SimpleNamespace, sae: Any, sample: Any, pack: Any
    ) -> None:
        selected = pack("comfy_revelio.steering").Selection((7, 8), (1.0, 1.0))
        handle = sae()
        both = nodes["RevelioSteerFeatures"].execute(
            mini.model, handle, **{**STEERING, "features": "7:0.5", "strength": 2.0}, selected=selected
        )[0]
        one = nodes["RevelioSteerFeatures"].execute(
            mini.model, handle, **{**STEERING, "features": "7:0.5, 8", "strength": 2.0}
        )[0]
        assert torch.allclose(sample(both), sample(one), atol=1e-5)


STEERING: dict[str, Any] = {
    "features": "glasses",
    "strength": -1.0,
    "start_percent": 0.0,
    "end_percent": 1.0,
    "role": "cond",
    "place": "usual",
    "mode": "push",
}
SEEING: dict[str, Any] = {"feature_numbers": "", "columns": 4, "role": "cond", "item": 0, "opacity": 0.9}


def assert_one_sentence(problem: pytest.ExceptionInfo[ValueError]) -> None:
    text = str(problem.value)
    assert type(problem.value).__name__ == "RevelioError"
    assert "\n" not in text
    assert text[0].isupper() or text[0] in '"0123456789'
    assert text.endswith(".")
