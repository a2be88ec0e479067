"""Learning in the graph: harvest, train, use; stopped and gone on with; concept vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PROMPTS = "a pixel art portrait, blue hair\n\na doodle of a person\nan ink sketch, red background"
SMALL = {"width": 64, "height": 48, "steps": 3, "cfg": 3.0}


@pytest.fixture
def folders(comfyui: Path, tmp_path: Path) -> Iterator[Path]:
    """models/sae and output inside the test's own folder."""
    import folder_paths

    before = folder_paths.folder_names_and_paths.get("sae"), folder_paths.get_output_directory()
    (tmp_path / "sae").mkdir()
    folder_paths.folder_names_and_paths["sae"] = ([str(tmp_path / "sae")], {".safetensors", ".pth"})
    folder_paths.set_output_directory(str(tmp_path / "output"))
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    folder_paths.set_output_directory(before[1])
    folder_paths.filename_list_cache.clear()
    if before[0] is None:
        del folder_paths.folder_names_and_paths["sae"]
    else:
        folder_paths.folder_names_and_paths["sae"] = before[0]


@pytest.fixture
def learn(pack: Callable[[str], ModuleType], folders: Path) -> ModuleType:
    return pack("nodes.learn")


def harvested(learn: ModuleType, mini: Any, **changes: Any) -> Any:
    settings = {
        "prompts": PROMPTS, "hook_point": "mid_block.attentions.0", "pictures": 20, "seed": 5,
        "sampler_name": "euler", "scheduler": "normal", "name": "mine", **SMALL,
    } | changes  # fmt: skip
    return learn.RevelioHarvest.execute(mini.model, mini.clip, **settings).args


QUICK = {"recipe": "topk", "expansion": 0.5, "k": 4, "steps": 120, "batch": 128, "learning_rate": 0.003}


def test_harvest_train_and_use(
    learn: ModuleType, pack: Callable[[str], ModuleType], mini: Any, folders: Path
) -> None:
    activations, about = harvested(learn, mini)
    assert "middle_block.1" in about and "20 images" in about
    sae, plot, report = learn.RevelioTrainSAE.execute(activations, name="my sae", **QUICK).args
    assert plot.ndim == 4 and plot.shape[-1] == 3
    assert "explained variance" in report and "timesteps 800 to 1000" in report
    assert sae.dictionary.hook_point == "middle_block.1"
    assert sae.dictionary.stats is not None
    assert sae.dictionary.stats.mean_map.shape == (96, 3, 4)  # 48 x 64 pixels, an eighth, and half of that
    # every word that got a label is a concept too, with maps of that grid, and both are in the file
    concepts = sae.dictionary.concepts
    assert concepts and set(concepts) == set(sae.dictionary.labels)
    assert all(
        concept.amount.shape == (1, 64, 3, 4) and concept.amount.any() for concept in concepts.values()
    )
    # at once in the list of Load SAE, and good for recording
    load = pack("nodes.load")
    assert pack("comfy_revelio.host.sae_files").listing() == ["my sae.safetensors"]
    again = load.RevelioLoadSAE.execute("my sae.safetensors", "", "auto").args[0]
    pack("nodes.observe").RevelioRecord.execute(mini.model, again)
    steer = pack("nodes.steer").RevelioSteerFeatures
    steer.execute(mini.model, again, "3", 1.0, 0.0, 1.0, "cond", "usual", "push")
    steer.execute(mini.model, again, next(iter(concepts)), -2.0, 0.0, 1.0, "cond", "usual", "push")


def test_interrupt_saves_and_the_same_settings_go_on(
    learn: ModuleType, mini: Any, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management as management

    activations, _ = harvested(learn, mini)
    steps: list[int] = []

    def interrupt() -> None:
        steps.append(len(steps))
        if len(steps) == 1:
            raise management.InterruptProcessingException

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", interrupt)
    with pytest.raises(management.InterruptProcessingException):
        learn.RevelioTrainSAE.execute(activations, name="mine", **QUICK)
    (state,) = (folders / "sae").iterdir()
    assert state.name == "mine.safetensors.training"
    learn.RevelioTrainSAE.execute(activations, name="mine", **QUICK)
    assert [file.name for file in (folders / "sae").iterdir()] == ["mine.safetensors"]
    assert len(steps) == 60  # one for every second step: it did not start anew


def test_a_stopped_harvest_is_found_again(
    learn: ModuleType, mini: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management as management
    import comfy.utils

    told: list[int] = []

    def update(_bar: Any, value: int, _total: int) -> None:
        told.append(value)
        if len(told) == 2:
            raise management.InterruptProcessingException

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", update)
    with pytest.raises(management.InterruptProcessingException):
        harvested(learn, mini)
    activations, about = harvested(learn, mini)
    assert "20 images" in about
    # 8 at a time: one batch before the interrupt, then the other 12 in two, and the end
    assert told == [0, 8, 8, 16, 20]
    other, _ = harvested(learn, mini, seed=6)
    assert other.folder != activations.folder


def test_a_concept_vector_moves_the_model_along_it(
    learn: ModuleType, pack: Callable[[str], ModuleType], mini: Any
) -> None:
    sae = learn.RevelioConceptVector.execute(
        mini.model, mini.clip, "middle_block.1", "blue hair", "a face, blue hair\na person, blue hair",
        "a face\na person", seed=1, **SMALL,
    ).args[0]  # fmt: skip
    assert sae.dictionary.labels == {"blue hair": [0]}
    steer = pack("nodes.steer").RevelioSteerFeatures
    model = steer.execute(mini.model, sae, "blue hair", 2.0, 0.0, 1.0, "cond", "everywhere", "push").args[0]
    generate = pack("comfy_revelio.host.record.generation")
    words, nothing = generate.encode(mini.clip, ["a face"]), generate.encode(mini.clip, [""])
    plain, steered = (
        generate.sample(one, words, nothing, [1], steps=3, height=48, width=64) for one in (mini.model, model)
    )
    assert not torch.equal(plain, steered)


def test_bad_input_is_one_sentence(learn: ModuleType, pack: Callable[[str], ModuleType], mini: Any) -> None:
    error = pack("comfy_revelio.errors").RevelioError
    with pytest.raises(error, match="no prompts"):
        harvested(learn, mini, prompts=" \n")
    with pytest.raises(error, match="cannot be a file name"):
        harvested(learn, mini, name="../evil")
    with pytest.raises(error, match="Unknown hook point"):
        harvested(learn, mini, hook_point="middel")
    with pytest.raises(error, match="prompts with the concept"):
        learn.RevelioConceptVector.execute(
            mini.model, mini.clip, "middle_block.1", "hat", "a hat", "", seed=0, **SMALL
        )


def test_an_expansion_that_is_no_number(pack: Any, learn: ModuleType, mini: Any, folders: Path) -> None:
    activations, _ = harvested(learn, mini)
    with pytest.raises(pack("comfy_revelio.errors").RevelioError, match="expansion must be a number above 0"):
        learn.RevelioTrainSAE.execute(activations, "topk", float("nan"), "wide")
