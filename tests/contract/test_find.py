"""Finding, choosing and naming features on the bundled model: what a user does, and what it is for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

LINES = [
    "a flat cartoon portrait of a smiling person{}, brown hair, green background",
    "a pixel art portrait of a person{}, brown hair, blue background",
    "an ink sketch of a person{}, white background",
    "a flat cartoon portrait of a sad person{}, red background",
]
WITH, WITHOUT = ([line.format(words) for line in LINES] for words in (" with glasses", ""))
SETTINGS = {"seed": 7, "width": 128, "height": 128, "steps": 20, "cfg": 3.0}
PLACEMENTS = ("middle_block.1", "output_blocks.2.1", "output_blocks.4.1")
FINDING: dict[str, Any] = {"count": 4, "hook_point": "", "role": "cond"}


@pytest.fixture(scope="module")
def bundled(pack: Callable[[str], ModuleType]) -> SimpleNamespace:
    model, clip, vae = pack("comfy_revelio.host.mini.model").load_mini()
    return SimpleNamespace(model=model, clip=clip, vae=vae)


@pytest.fixture(scope="module")
def saes(pack: Callable[[str], ModuleType]) -> dict[str, Any]:
    files = pack("comfy_revelio.host.sae_files")
    load = pack("comfy_revelio.dictionary").load_dictionary
    root = Path(__file__).resolve().parents[2] / "sae_weights"
    names = {part: f"revelio_mini_{part}.safetensors" for part in ("middle", "up2", "up4")}
    return {part: files.handle(load(root / name), name) for part, name in names.items()}


@pytest.fixture(scope="module")
def traces(
    pack: Callable[[str], ModuleType], bundled: SimpleNamespace, saes: dict[str, Any]
) -> tuple[Any, Any]:
    """Four pictures with glasses and the same without, at all three places."""
    node = pack("nodes.observe").RevelioRecordPrompts
    return tuple(
        node.execute(
            bundled.model,
            bundled.clip,
            saes["middle"],
            "\n".join(lines),
            sae_2=saes["up2"],
            sae_3=saes["up4"],
            **SETTINGS,
        ).args[0]
        for lines in (WITH, WITHOUT)
    )


@pytest.fixture
def find(pack: Callable[[str], ModuleType]) -> ModuleType:
    return pack("nodes.find")


def test_glasses_are_found(find: ModuleType, traces: Any, saes: Any) -> None:
    """One feature of the middle block stands for them in all drawing styles: the clearest of all places."""
    features, figure, table = find.RevelioFindFeatures.execute(
        traces[0], trace_without=traces[1], **FINDING
    ).args
    assert features.source == "middle_block.1" and len(features.features) == 4
    assert features.features[0] == saes["middle"].dictionary.labels["glasses"][0]
    assert table.splitlines()[2].split("|")[2].strip() == "glasses"
    assert figure.shape[0] == 1 and figure.shape[3] == 3
    assert float(figure.min()) >= 0 and float(figure.max()) <= 1


def test_of_another_place(find: ModuleType, traces: Any, saes: Any) -> None:
    features, _, table = find.RevelioFindFeatures.execute(
        traces[0], trace_without=traces[1], **{**FINDING, "hook_point": "output_blocks.2.1"}
    ).args
    assert features.source == "output_blocks.2.1"
    assert set(features.features[:2]) <= set(saes["up2"].dictionary.labels["glasses"])
    assert "middle_block" not in table


def test_all_places_and_steps_are_compared(pack: Callable[[str], ModuleType], traces: Any) -> None:
    findings = pack("comfy_revelio.analysis").find_features(*traces)
    assert set(findings.effects) == set(PLACEMENTS)
    assert {here.effect.shape[0] for here in findings.effects.values()} == {20}
    nothing = pack("comfy_revelio.analysis").find_features(traces[0], traces[0])
    assert nothing.best(1) == []


def test_inside_a_mask(find: ModuleType, traces: Any) -> None:
    """One run alone, and a band over the eyes."""
    mask = torch.zeros(1, 128, 128)
    mask[:, 48:72, 32:96] = 1
    features, _, table = find.RevelioFindFeatures.execute(
        traces[0], mask=mask, **{**FINDING, "hook_point": "output_blocks.2.1", "count": 8}
    ).args
    assert features.source == "output_blocks.2.1"
    assert len(features.features) == 8
    assert "output_blocks.2.1" in table and "middle_block" not in table


def test_a_concept_found_in_four_pairs_takes_glasses_out(
    find: ModuleType, pack: Callable[[str], ModuleType], bundled: SimpleNamespace, saes: Any, traces: Any
) -> None:
    """Of pictures of other prompts and seeds; and its table names what a user knows."""
    chosen, table = find.RevelioFindConcept.execute(saes["up4"], *traces, count=64, role="cond").args
    assert chosen.source == "output_blocks.4.1" and len(chosen.concepts[0][0].features) == 64
    assert len(table.splitlines()) == 2 + 16 and "glasses" in table
    (steered,) = (
        pack("nodes.steer")
        .RevelioSteerFeatures.execute(
            bundled.model, saes["up4"], "", -2.0, 0.0, 1.0, "both", "usual", "push", selected=chosen
        )
        .args
    )
    prompts = [
        f"a {style} portrait of a sad person with glasses and black hair, yellow background"
        for style in ("flat cartoon", "pixel art")
    ] * 2
    pictures = pack("comfy_revelio.host.record.generation").generate_images
    judge = import_module("lab.evaluate.judge").load_judge()
    evaluate = import_module("lab.evaluate.prompts")
    settings = {"steps": 20, "cfg": 3.0, "sampler": "euler", "scheduler": "normal"}
    plain, without = (
        evaluate.rate(judge.label(images), evaluate.CONCEPTS[0], also=True)
        for images in (
            pictures(model, bundled.clip, bundled.vae, prompts, range(90, 94), **settings)
            for model in (bundled.model, steered)
        )
    )
    assert plain == 1.0 and without <= 0.25


def test_records_of_prompts_are_those_of_single_runs(
    pack: Callable[[str], ModuleType], bundled: SimpleNamespace, saes: dict[str, Any]
) -> None:
    record = pack("comfy_revelio.host.record.prompts")
    settings = {"steps": 2, "cfg": 3.0, "height": 64, "width": 48}
    lines = [f"a doodle, {n} hats" for n in ("no", "one", "two")] * 3  # more than are sampled together
    trace, latents = record.record_prompts(
        bundled.model, bundled.clip, [saes["up2"], saes["middle"]], lines, seed=5, **settings
    )
    assert latents.shape == (9, 4, 8, 6) and trace.batch_size == 9
    assert set(trace.hook_points) == {"middle_block.1", "output_blocks.2.1"}
    alone, _ = record.record_prompts(
        bundled.model, bundled.clip, [saes["up2"]], lines[8:], seed=13, **settings
    )
    ours, theirs = (one.steps("output_blocks.2.1")[1].codes for one in (trace, alone))
    assert torch.allclose(ours.dense()[8], theirs.dense()[0], atol=1e-3)


class TestSelecting:
    def test_written_and_connected(self, find: ModuleType, sae: Callable[..., Any], pack: Any) -> None:
        selection = pack("comfy_revelio.steering").Selection
        connected = selection((7, 3), (1.0, 1.0), source="middle_block.1")
        chosen, table = find.RevelioSelectFeatures.execute(sae(), "#7 = 0\n8:2, Glasses = -1", connected).args
        assert dict(zip(chosen.features, chosen.weights, strict=True)) == {7: 0.0, 3: -1.0, 8: 2.0, 5: -1.0}
        assert chosen.source == "middle_block.1"
        assert "glasses" in table and "#8" in table
        nothing, told = find.RevelioSelectFeatures.execute(sae(), "").args
        assert nothing.empty and told == "Nothing is selected."

    def test_bad_input_is_one_sentence(self, find: ModuleType, sae: Callable[..., Any], pack: Any) -> None:
        for text, message in (("96", "0 to 95"), ("hats", "glasses"), ("3 = x", "weight")):
            with pytest.raises(ValueError, match=message) as problem:
                find.RevelioSelectFeatures.execute(sae(), text)
            assert "\n" not in str(problem.value)


def test_bad_input_is_one_sentence(
    find: ModuleType, pack: Callable[[str], ModuleType], bundled: Any, saes: Any, traces: Any
) -> None:
    node = find.RevelioFindFeatures
    for given, message in (
        ({}, "nothing to compare with"),
        ({"trace_without": traces[1], "hook_point": "up"}, "was not recorded"),
        ({"trace_without": traces[1], "role": "cond2"}, "role 'cond2'"),
        ({"mask": torch.ones(1, 8, 8)}, "all white or all black"),
    ):
        with pytest.raises(ValueError, match=message) as problem:
            node.execute(traces[0], **{**FINDING, **given})
        assert "\n" not in str(problem.value)
    with pytest.raises(ValueError, match="no prompts"):
        pack("nodes.observe").RevelioRecordPrompts.execute(
            bundled.model, bundled.clip, saes["up2"], " \n", **SETTINGS
        )
