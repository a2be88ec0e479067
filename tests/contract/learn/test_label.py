"""Label Features in the graph: what it writes, who reads it, and what a user can do wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PROMPTS = "\n".join(
    f"{style} portrait, {hair} hair, {ground} background"
    for style in ("pixel art", "flat cartoon")
    for hair, ground in (("blue", "red"), ("red", "blue"), ("blue", "white"), ("red", "white"))
)
SETTINGS: dict[str, Any] = {
    "prompts": PROMPTS, "pictures": 16, "seed": 3, "width": 48, "height": 64, "steps": 3, "cfg": 3.0,
    "examples": 2, "by": "captions",
}  # fmt: skip


@pytest.fixture
def folder(comfyui: Path, pack: Callable[[str], ModuleType], sae: Any, tmp_path: Path) -> Iterator[Path]:
    """models/sae with one SAE in it, and a folder of the pack's own with another."""
    import folder_paths

    files = pack("comfy_revelio.host.sae_files")
    before = folder_paths.folder_names_and_paths.get("sae"), files._bundled
    for name in ("sae", "own"):
        (tmp_path / name).mkdir()
    pack("comfy_revelio.dictionary").save_dictionary(sae().dictionary, tmp_path / "sae" / "mine.safetensors")
    shutil.copy(tmp_path / "sae" / "mine.safetensors", tmp_path / "own" / "bundled.safetensors")
    folder_paths.folder_names_and_paths["sae"] = ([str(tmp_path / "sae")], {".safetensors"})
    files.register_folder(tmp_path / "own")
    roots, kinds = folder_paths.folder_names_and_paths["sae"]
    folder_paths.folder_names_and_paths["sae"] = ([r for r in roots if r.startswith(str(tmp_path))], kinds)
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    files._bundled = before[1]
    folder_paths.filename_list_cache.clear()
    if before[0] is None:
        del folder_paths.folder_names_and_paths["sae"]
    else:
        folder_paths.folder_names_and_paths["sae"] = before[0]


@pytest.fixture
def label(pack: Callable[[str], ModuleType], mini: Any, folder: Path) -> Callable[..., tuple[Any, ...]]:
    """Runs the node on an SAE file by name."""

    def run(name: str = "mine.safetensors", **changes: Any) -> tuple[Any, ...]:
        handle = pack("comfy_revelio.host.sae_files").load(name)
        node = pack("nodes.find").RevelioLabelFeatures
        return node.execute(mini.model, mini.clip, mini.vae, handle, **{**SETTINGS, **changes}).args

    return run


def test_an_index_is_written_beside_the_sae_and_read_from_then_on(
    label: Any, pack: Callable[[str], ModuleType], folder: Path
) -> None:
    files = pack("comfy_revelio.host.sae_files")
    before = files.fingerprint("mine.safetensors")
    found, figure, table = label()
    assert (folder / "sae" / "mine.index.safetensors").is_file()
    assert figure.ndim == 4 and figure.shape[3] == 3
    assert "fired in 16 images" in table
    assert found.index.items == 16 and found.index.grid == (4, 3)
    index = pack("comfy_revelio.analysis.index").read_index(folder / "sae" / "mine.index.safetensors")
    assert index.crops.shape[1:] == (48, 48, 3)
    assert index.crops.flatten(1).float().std(1).mean() > 0  # real pictures, not one colour
    feature, named = next(iter(index.labels.items()))
    again = files.load("mine.safetensors")
    assert feature in again.dictionary.labels[named.text]
    assert again.dictionary.labels["glasses"] == [3, 5]  # its own stay
    assert files.fingerprint("mine.safetensors") != before  # Load SAE runs again
    assert set(files.listing()) == {"bundled.safetensors", "mine.safetensors"}


def test_the_index_of_a_bundled_sae_goes_to_the_users_folder(
    label: Any, pack: Callable[[str], ModuleType], folder: Path
) -> None:
    found, _, _ = label("bundled.safetensors", pictures=8)
    assert [file.name for file in (folder / "own").iterdir()] == ["bundled.safetensors"]
    assert (folder / "sae" / "bundled.index.safetensors").is_file()
    assert found.index.path == folder / "sae" / "bundled.index.safetensors"


def test_an_index_of_another_sae_is_not_used(
    label: Any, pack: Callable[[str], ModuleType], folder: Path, sae: Any, caplog: pytest.LogCaptureFixture
) -> None:
    label(pictures=8)
    dictionary = sae(n=80).dictionary  # trained anew under the same name
    pack("comfy_revelio.dictionary").save_dictionary(dictionary, folder / "sae" / "mine.safetensors")
    again = pack("comfy_revelio.host.sae_files").load("mine.safetensors")
    assert again.index is None and list(again.dictionary.labels) == ["glasses"]
    assert "belongs to another SAE" in caplog.text
    (folder / "sae" / "mine.index.safetensors").write_bytes(b"nonsense")
    assert pack("comfy_revelio.host.sae_files").load("mine.safetensors").index is None


def test_the_endpoint_comes_from_the_environment_alone(
    label: Any, pack: Callable[[str], ModuleType], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="REVELIO_LABEL_URL"):
        label(by="endpoint")
    asked: list[Any] = []

    def ask(endpoint: Any, crops: torch.Tensor) -> str:
        asked.append(endpoint)
        return "a hat"

    monkeypatch.setattr(pack("comfy_revelio.analysis.labelling"), "ask", ask)
    for name, value in (("URL", "http://here/v1"), ("MODEL", "seer"), ("KEY", "secret")):
        monkeypatch.setenv(f"REVELIO_LABEL_{name}", value)
    found, _, table = label(by="endpoint", pictures=8)
    assert {(one.url, one.model, one.key) for one in asked} == {("http://here/v1", "seer", "secret")}
    assert len(found.dictionary.labels["a hat"]) == len(asked) <= 64
    assert "secret" not in table


def test_interrupt_leaves_no_file(label: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management

    def interrupt() -> None:
        raise management.InterruptProcessingException

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", interrupt)
    with pytest.raises(management.InterruptProcessingException):
        label()
    assert not list((folder / "sae").glob("*index*"))


def test_bad_input_is_one_sentence(
    label: Any, pack: Callable[[str], ModuleType], mini: Any, sae: Any, folder: Path
) -> None:
    for changes, message in (
        ({"prompts": "\n"}, "no prompts"),
        ({"by": "clip", "clip_model": "../../etc"}, "no CLIP model"),
        ({"by": "clip", "clip_model": ".."}, "no CLIP model"),
        ({"by": "clip", "clip_model": ""}, "no CLIP model"),
    ):
        with pytest.raises(ValueError, match=message) as problem:
            label(**changes)
        assert "\n" not in str(problem.value)
    node = pack("nodes.find").RevelioLabelFeatures
    with pytest.raises(ValueError, match="no SAE file"):
        unsaved = pack("comfy_revelio.host.sae_files").handle(sae().dictionary, "a vector")
        node.execute(mini.model, mini.clip, mini.vae, unsaved, **SETTINGS)
    assert not list((folder / "sae").glob("*index*"))
