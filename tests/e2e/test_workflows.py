"""Every workflow that comes with the pack, sent to the real server; the judge looks at its pictures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from comfy_revelio.render import grid
from comfy_revelio.steering.sweep import strength_label, strengths
from devtools.client import Client, Prompt, RunResult
from devtools.demo.workflows import image_name, named_models
from lab.data.attributes import ATTRIBUTES, index_of
from lab.evaluate.judge import Judge, load_judge
from lab.evaluate.prompts import CONCEPTS, rate

SEE, FEATURE, CONCEPT = "01_see_features", "02_steer_a_feature", "03_steer_a_concept"
TRAIN, EXPLORE = "04_train_your_own_sae", "05_explore_and_steer"
WORDS, TIME, COMPARE = "06_word_maps", "07_features_over_time", "08_compare_two_prompts"
SWEEP, LOOK = "10_sweep_a_strength", "11_look_at_a_picture"
TRAINED, WORDED = ["12_train_on_sd15", "13_train_on_sdxl"], ["17_word_maps_sd15", "18_word_maps_sdxl"]
OTHER_MODELS = [*TRAINED, *WORDED]
FIND, PAINT = "09_find_a_concept", "14_paint_to_steer"
EVERYWHERE, MODELS = "15_remove_everywhere", "16_compare_two_models"
ALL = [SEE, FEATURE, CONCEPT, TRAIN, EXPLORE, WORDS, TIME, COMPARE, FIND, SWEEP, LOOK, *TRAINED]
ALL += [PAINT, EVERYWHERE, MODELS, *WORDED]
GLASSES = CONCEPTS[0]
PROMPTED = {"style": "flat cartoon", "background": "green", "hair": "blue", "mood": "smile"}
"""What all the workflows' prompts ask for besides the concept that is steered."""


class Finished:
    """One workflow, run to its end."""

    def __init__(self, graph: Prompt, result: RunResult) -> None:
        self.graph, self.result = graph, result

    def saved(self, name: str) -> Tensor:
        """The pictures saved under a name, such as 02_down_steered: [n, H, W, 3] in 0..1."""
        files = [p.data for p in self.result.images if p.type == "output" and image_name(p.filename) == name]
        assert files, f"the workflow saved nothing as {name}"
        pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
        return torch.from_numpy(np.stack(pictures)).float() / 255

    def texts(self, kind: str) -> list[str]:
        """What the nodes of a class showed as text."""
        return [
            "\n".join(self.result.outputs[number]["text"])
            for number, entry in self.graph.items()
            if entry["class_type"] == kind
        ]


@pytest.fixture(scope="module")
def finished(client: Client, pack: Path) -> Callable[[str], Finished]:
    """finished(name) runs a workflow once and gives what it made."""
    done: dict[str, Finished] = {}

    def get(name: str) -> Finished:
        if name not in done:
            file = pack / "workflows" / f"{name}.json"
            graph = client.to_api(json.loads(file.read_text(encoding="utf-8")))
            if name in OTHER_MODELS:
                trained = json.loads((pack / "workflows" / f"{TRAIN}.json").read_text(encoding="utf-8"))
                on_the_bundled_model(graph, _inputs_of(client.to_api(trained), "RevelioHarvest"))
            done[name] = Finished(graph, client.run(graph))
        assert done[name].result.error is None, done[name].result.error
        return done[name]

    return get


@pytest.fixture(scope="module")
def judge(pack: Path) -> Judge:
    """Reads attributes from pictures; bundled, so that missing it is a failure."""
    return load_judge(pack / "sae_weights" / "revelio_mini" / "judge.safetensors")


def test_no_workflow_is_left_out(pack: Path) -> None:
    assert sorted(file.stem for file in (pack / "workflows").glob("*.json")) == ALL


@pytest.mark.parametrize("name", ALL)
def test_it_runs_to_the_end(finished: Callable[[str], Finished], name: str) -> None:
    workflow = finished(name)
    result = workflow.result
    assert result.events[-1].type in ("execution_success", "executing")
    assert any(event.type == "execution_success" for event in result.events)
    showing = {"SaveImage", "SaveVideo", "PreviewAny"}
    showing |= {"RevelioFeatureMaps", "RevelioFeatureTimeline", "RevelioFeatureAnimation"}
    for number, entry in workflow.graph.items():
        if entry["class_type"] in showing:
            assert result.outputs.get(number), f"node {number} ({entry['class_type']}) showed nothing"


def test_the_picture_shows_what_its_prompt_says(finished: Callable[[str], Finished], judge: Judge) -> None:
    picture = finished(SEE).saved("01_picture")
    assert picture.shape == (1, 128, 128, 3)
    assert rate(judge.label(picture), GLASSES, also=False) == 1.0
    assert agreement(judge.label(picture)) == 1.0


@pytest.mark.parametrize("name", ["01_features_middle", "01_features_up2"])
def test_feature_maps(finished: Callable[[str], Finished], name: str) -> None:
    """Six features at eight steps beside the picture, with heat in every row."""
    workflow = finished(SEE)
    (figure,) = workflow.saved(name)
    maps = _inputs_of(workflow.graph, "RevelioFeatureMaps")
    rows, columns = _inputs_of(workflow.graph, "RevelioTopFeatures")["count"], 1 + maps["columns"]
    height, width, _ = figure.shape
    cell = 128  # a cell holds the picture unscaled
    assert rows * cell < height < rows * cell + 320
    assert columns * cell < width < columns * cell + 480
    colourful = figure.amax(-1) - figure.amin(-1) > 0.1  # the picture below the heat is gray: 0.02
    maps_only = colourful[height - rows * (cell + 4) :, -columns * (cell + 4) : -cell]
    for row in maps_only.tensor_split(rows):
        assert row.any(), "a row without heat"
    assert not colourful.all() and figure.unique().numel() > 100


def test_the_figures_are_of_two_places(finished: Callable[[str], Finished]) -> None:
    workflow = finished(SEE)
    middle, up = workflow.saved("01_features_middle"), workflow.saved("01_features_up2")
    assert middle.shape != up.shape or not torch.equal(middle, up)


def test_the_tables_list_the_features_drawn(finished: Callable[[str], Finished]) -> None:
    tables = finished(SEE).texts("PreviewAny")
    assert len(tables) == 2
    for table in tables:
        assert table.count("\n| #") == 6
        assert "peak" in table


@pytest.mark.parametrize("name", [FEATURE, CONCEPT])
def test_glasses_are_taken_out_and_put_in(
    finished: Callable[[str], Finished], judge: Judge, name: str
) -> None:
    """The judge on the four pictures of each row: less of it when steered down, more when steered up."""
    found = {tag: judge.label(finished(name).saved(f"{name[:2]}_{tag}")) for tag in ROWS}
    assert all(len(values) == 4 for values in found.values())
    down = [rate(found[tag], GLASSES, also=True) for tag in ("down_without", "down_steered")]
    up = [rate(found[tag], GLASSES, also=False) for tag in ("up_without", "up_steered")]
    assert down[0] > down[1], f"steered down from {down[0]:.0%} to {down[1]:.0%}"
    assert up[0] < up[1], f"steered up from {up[0]:.0%} to {up[1]:.0%}"


@pytest.mark.parametrize("name", [FEATURE, CONCEPT])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_steering_leaves_the_rest_of_the_prompt(
    finished: Callable[[str], Finished], judge: Judge, name: str, direction: str
) -> None:
    """At most two of the sixteen other things that the four pictures should show may be lost."""
    before, after = (
        agreement(judge.label(finished(name).saved(f"{name[:2]}_{direction}_{kind}")))
        for kind in ("without", "steered")
    )
    assert after >= before - 2 / 16


def test_what_was_found_is_told(finished: Callable[[str], Finished]) -> None:
    for text in finished(CONCEPT).texts("PreviewAny"):
        assert 'found for "glasses"' in text


def test_unsteered_rows_are_the_same_in_both_workflows(finished: Callable[[str], Finished]) -> None:
    """Same prompt, same seed, and two kinds of steering beside them: nothing may differ."""
    rows = [finished(name).saved(f"{name[:2]}_up_without") for name in (FEATURE, CONCEPT)]
    assert torch.equal(*rows)


def test_an_sae_is_trained_on_the_spot(finished: Callable[[str], Finished]) -> None:
    workflow = finished(TRAIN)
    (plot,) = workflow.saved("04_training")
    assert plot.shape[-1] == 3 and plot.unique().numel() > 50
    harvested, report = workflow.texts("PreviewAny")
    if "explained variance" in harvested:
        harvested, report = report, harvested
    assert "96 images" in harvested
    explained = float(report.split("explained variance ")[1].split(",")[0])
    assert explained > 0.8
    assert "glasses" in report.split("labels: ")[1].splitlines()[0]


def test_the_sae_trained_on_the_spot_steers(finished: Callable[[str], Finished], judge: Judge) -> None:
    """All four pictures have glasses as asked; steered, at most one still has, and the rest is kept."""
    before, after = (judge.label(finished(TRAIN).saved(f"04_{kind}")) for kind in ("without", "steered"))
    assert rate(before, GLASSES, also=True) == 1.0
    assert rate(after, GLASSES, also=True) <= 0.25
    for name in ("style", "background", "mood"):
        right = after[:, list(ATTRIBUTES).index(name)] == index_of(name, PROMPTED[name])
        assert right.sum() >= 3, f"{name} was lost"


def test_words_are_looked_up_where_their_things_are(
    finished: Callable[[str], Finished], judge: Judge
) -> None:
    """Masks of glasses, hair and background: in the face, above it, and around everything."""
    workflow = finished(WORDS)
    (picture,) = workflow.saved("06_picture")
    assert rate(judge.label(picture[None]), GLASSES, also=False) == 1.0
    glasses, hair, background = workflow.saved("06_mask").mean(-1) > 0.5
    assert background[:8, :8].all() and background[:8, -8:].all()  # both upper corners
    assert not background[56:72, 56:72].any() and background.float().mean() > 0.2
    assert 0.005 < glasses.float().mean() < 0.2 and 0.02 < hair.float().mean() < 0.5
    rows = torch.arange(128.0)[:, None]
    centres = [(mask * rows).sum() / mask.sum() for mask in (hair, glasses)]
    assert centres[0] < centres[1] < 90
    (table,) = workflow.texts("PreviewAny")
    for word in ("glasses", "hair", "background", "smiling"):
        assert f"| {word} " in table


def test_nothing_chosen_in_the_explorer_changes_nothing(
    finished: Callable[[str], Finished], judge: Judge
) -> None:
    """Before anybody has chosen anything, both branches draw the same picture, with glasses."""
    workflow = finished(EXPLORE)
    pictures = [workflow.saved(f"05_{kind}") for kind in ("without", "steered")]
    assert torch.equal(*pictures)
    assert rate(judge.label(pictures[0]), GLASSES, also=False) == 1.0


def test_a_row_of_strengths(finished: Callable[[str], Finished], judge: Judge) -> None:
    """Glasses go the further the strength falls, and come the further it rises; 0 is what was asked for."""
    rows = {tag: judge.label(_cells(finished(SWEEP), f"10_{tag}", 5)) for tag in ("down", "up")}
    seen = {tag: [rate(row[i : i + 1], GLASSES, also=True) for i in range(5)] for tag, row in rows.items()}
    assert seen["down"][0] == 0.0 and seen["down"][-1] == 1.0  # from strength -1.5 to 0
    assert seen["up"][0] == 0.0 and seen["up"][-1] == 1.0  # from strength 0 to 2
    for row in seen.values():
        assert row == sorted(row)


def test_a_finished_picture_is_looked_at(finished: Callable[[str], Finished]) -> None:
    """Seven amounts of noise make seven columns, and the table's features have heat in them."""
    workflow = finished(LOOK)
    (table,) = workflow.texts("PreviewAny")
    assert table.count("\n| #") == 6
    (figure,) = workflow.saved("11_features")
    assert figure.shape[1] > 8 * 128
    colourful = figure.amax(-1) - figure.amin(-1) > 0.1
    assert colourful.any() and not colourful.all()


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_a_workflow_for_another_model_names_its_download(pack: Path, name: str) -> None:
    """What ComfyUI needs to offer it: an address, the folder, and the name that the loader has chosen."""
    file = pack / "workflows" / f"{name}.json"
    (model,) = named_models(file)
    assert model["url"].startswith("https://") and model["url"].endswith(f"/{model['name']}")
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    (loader,) = (node for node in nodes if node["type"] == "CheckpointLoaderSimple")
    assert loader["widgets_values"] == [model["name"]]
    assert model["directory"] == "checkpoints"


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_and_steers_on_another_model(finished: Callable[[str], Finished], name: str) -> None:
    workflow = finished(name)
    assert any("explained variance" in text for text in workflow.texts("PreviewAny"))
    without, steered = (workflow.saved(f"{name}_{kind}") for kind in ("without", "steered"))
    assert not torch.equal(without, steered)


@pytest.mark.parametrize("name", WORDED)
def test_words_are_shown_on_another_model(finished: Callable[[str], Finished], name: str) -> None:
    """Three figures, a mask for each word asked for, and each of the words in the table."""
    workflow = finished(name)
    tag = name[:2]
    for figure in ("words", "words_by_step", "words_by_layer"):
        (picture,) = workflow.saved(f"{tag}_{figure}")
        assert (picture.amax(-1) - picture.amin(-1) > 0.2).any(), "a figure without heat"
    assert workflow.saved(f"{tag}_mask").shape == (3, 128, 128, 3)
    (table,) = workflow.texts("PreviewAny")
    for word in ("glasses", "hair", "scarf"):
        assert f"| {word} " in table


def test_steering_works_where_the_concept_was_found(
    finished: Callable[[str], Finished], judge: Judge
) -> None:
    """Glasses are clearest in up block 2, and go when steered in the bright places, not in the dark one."""
    workflow = finished(FIND)
    lists = [judge.label(workflow.saved(f"09_{name}")) for name in ("with", "without")]
    assert [rate(found, GLASSES, also=True) for found in lists] == [1.0, 0.0]
    (table,) = workflow.texts("PreviewAny")
    assert "output_blocks.2.1" in table.splitlines()[2]
    assert len(workflow.saved("09_found")) == 4
    rows = [judge.label(workflow.saved(f"09_{name}")) for name in ("plain", "middle", "steered")]
    assert [rate(found, GLASSES, also=True) for found in rows] == [1.0, 1.0, 0.0]


def test_only_what_is_painted_is_steered(finished: Callable[[str], Finished]) -> None:
    """A dark rim comes into the painted circle, over one eye; away from it the picture stays."""
    workflow = finished(PAINT)
    (before,), (after,), (mask,) = (workflow.saved(f"14_{name}") for name in ("as_asked", "painted", "mask"))
    painted = mask.mean(-1)
    assert 0.05 < (painted > 0.5).float().mean() < 0.2 and (painted[:, :64] < 0.5).all()
    away = functional.max_pool2d(painted[None], 33, stride=1, padding=16)[0] == 0  # two places of the latent
    changed = (after - before).abs().amax(-1)
    assert changed[away].max() < 0.15 and away.float().mean() > 0.5
    assert changed[painted > 0.5].mean() > 0.1
    dark = [(picture.amax(-1) < 0.3)[painted > 0.5].float().mean() for picture in (before, after)]
    assert dark[1] > 2 * dark[0]


def test_a_concept_is_removed_everywhere(finished: Callable[[str], Finished], judge: Judge) -> None:
    """Every prompt asks for some kind of glasses; text and model together leave none of them."""
    kinds = ("without", "text", "model", "both")
    found = {kind: judge.label(_cells(finished(EVERYWHERE), f"15_{kind}", 5)) for kind in kinds}
    seen = {kind: rate(values, GLASSES, also=True) for kind, values in found.items()}
    assert seen["without"] == 1.0 and seen["both"] == 0.0
    assert seen["text"] <= 0.4 and seen["model"] <= 0.4
    kept = [list(ATTRIBUTES).index(name) for name in ("style", "background")]
    assert torch.equal(found["both"][:, kept], found["without"][:, kept])


def test_two_models_compared(finished: Callable[[str], Finished], judge: Judge) -> None:
    """One prompt, one seed: the first model draws the glasses, the second does not, and the maps say so."""
    workflow = finished(MODELS)
    first, second = (judge.label(workflow.saved(f"16_{name}")) for name in ("first", "second"))
    assert rate(first, GLASSES, also=False) == 1.0 and rate(second, GLASSES, also=True) == 0.0
    assert agreement(second) == 1.0
    _assert_both_colours(workflow.saved("16_difference")[0])
    (curves,) = workflow.saved("16_timeline")
    assert curves.unique().numel() > 100


def test_features_over_time_as_curves_film_and_pictures(finished: Callable[[str], Finished]) -> None:
    workflow = finished(TIME)
    (curves,) = workflow.saved("07_timeline")
    assert curves.unique().numel() > 100
    numbers = next(text for text in workflow.texts("PreviewAny") if text.startswith("run,"))
    lines = list(csv.DictReader(io.StringIO(numbers)))
    features = _inputs_of(workflow.graph, "RevelioTopFeatures")["count"]
    assert len(lines) == features * 20 and len({line["feature"] for line in lines}) == features
    assert {line["step"] for line in lines} == {str(step) for step in range(1, 21)}
    assert all(0 <= float(line["share"]) <= 1 for line in lines)
    assert any(float(line["mean"]) > 0 for line in lines)
    overlays = workflow.saved("07_overlay")
    assert overlays.shape == (features, 512, 512, 3)
    for picture in overlays:
        assert (picture.amax(-1) - picture.amin(-1) > 0.2).any(), "an overlay without heat"

    film = next(p for p in workflow.result.images if p.type == "temp" and p.filename.endswith(".webp"))
    with Image.open(io.BytesIO(film.data)) as moving:
        assert moving.n_frames == 20
        assert "07_animation" in moving.getexif()[0x0110]  # the workflow is in it
    video = next(p for p in workflow.result.images if p.filename.endswith(".mp4"))
    assert image_name(video.filename) == "07_animation" and len(video.data) > 5_000


def test_two_prompts_compared(finished: Callable[[str], Finished], judge: Judge) -> None:
    """The word is in the second picture alone, and colours of both directions are in the figure."""
    workflow = finished(COMPARE)
    first, second = (judge.label(workflow.saved(f"08_{name}")) for name in ("first", "second"))
    assert rate(first, GLASSES, also=False) == 0.0 and rate(second, GLASSES, also=False) == 1.0
    _assert_both_colours(workflow.saved("08_difference")[0])
    (curves,) = workflow.saved("08_timeline")
    assert curves.unique().numel() > 100


ROWS = ("down_without", "down_steered", "up_without", "up_steered")


def on_the_bundled_model(graph: Prompt, known: dict[str, Any]) -> None:
    """Put Revelio Mini where the checkpoint is, in its size, with prompts and a place that it is known by.

    It learns from images of few steps, in few steps: how well an SAE gets is asked of the workflow that
    trains on Revelio Mini, and here that the graph runs to its end and what it learned reaches the sampler.

    known: the inputs of Harvest Activations of the workflow that trains on Revelio Mini.
    """
    for entry in graph.values():
        changed: dict[str, Any] = {"width": 128, "height": 128}
        if entry["class_type"] == "CheckpointLoaderSimple":
            entry |= {"class_type": "RevelioMiniModel", "inputs": {}}
        elif entry["class_type"] == "RevelioHarvest":
            changed |= {key: known[key] for key in ("prompts", "hook_point")}
            changed |= {"pictures": 24, "steps": 4}
        elif entry["class_type"] == "RevelioTrainSAE":
            changed = {"steps": 200, "batch": 1024, "learning_rate": 0.003}
        entry["inputs"] |= {key: value for key, value in changed.items() if key in entry["inputs"]}


def _assert_both_colours(figure: Tensor) -> None:
    """A figure [H, W, 3] of Feature Maps, view difference, six columns: more and less are in its maps."""
    warm, cold = figure[..., 0] - figure[..., 2], figure[..., 2] - figure[..., 0]
    maps = (slice(130, None), slice(-6 * 134 - 110, -110))  # the steps, without pictures, labels and scale
    assert (warm[maps] > 0.3).sum() > 200 and (cold[maps] > 0.3).sum() > 200


def _cells(workflow: Finished, name: str, count: int) -> Tensor:
    """The pictures [count, H, W, 3] of a figure of Image Grid, found by drawing the same with pink ones."""
    (figure,) = workflow.saved(name)
    entries = workflow.graph.values()
    (saving,) = (e["inputs"] for e in entries if e["inputs"].get("filename_prefix") == f"revelio/{name}")
    inputs = workflow.graph[saving["images"][0]]["inputs"]
    labels = [str(number) for number in range(1, count + 1)]
    if "labels" in inputs:
        values = workflow.graph[inputs["labels"][0]]["inputs"]["values"]
        labels = [strength_label(strength) for strength in strengths(0, 0, 1, values)]
    pink = torch.tensor([1.0, 0.0, 1.0]).expand(128, 128, 3)
    drawn = grid([pink] * count, labels, title=inputs["title"])
    there = (drawn == pink[0, 0]).all(-1)
    assert drawn.shape == figure.shape
    side = math.isqrt(int(there.sum()) // count)
    rows = figure[there.any(1)]
    return torch.stack(rows[:, there.any(0)].split(side, dim=1))


def agreement(found: Tensor) -> float:
    """Share of the prompted attributes besides the concept that the judge sees; found: [n, attributes]."""
    names = list(ATTRIBUTES)
    right = [found[:, names.index(name)] == index_of(name, value) for name, value in PROMPTED.items()]
    return torch.stack(right).float().mean().item()


def _inputs_of(graph: Prompt, kind: str) -> dict[str, Any]:
    return next(entry["inputs"] for entry in graph.values() if entry["class_type"] == kind)
