"""The `sae` model folder in the real folder_paths, and files of all sorts in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def files(pack: Any) -> Any:
    return pack("comfy_revelio.host.sae_files")


@pytest.fixture
def folder(files: Any, tmp_path: Path) -> Iterator[Path]:
    """An empty `sae` folder instead of the real ones."""
    import folder_paths

    before = folder_paths.folder_names_and_paths.get("sae")
    folder_paths.folder_names_and_paths["sae"] = ([str(tmp_path)], {".safetensors"})
    folder_paths.filename_list_cache.pop("sae", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("sae", None)
    if before is None:
        folder_paths.folder_names_and_paths.pop("sae")
    else:
        folder_paths.folder_names_and_paths["sae"] = before


def test_the_folder_keeps_extra_paths(files: Any, tmp_path: Path) -> None:
    import folder_paths

    before = folder_paths.folder_names_and_paths.pop("sae", None)
    try:
        folder_paths.add_model_folder_path("sae", "/elsewhere/sae")  # as extra_model_paths.yaml does
        files.register_folder(tmp_path)
        files.register_folder(tmp_path)
        paths, extensions = folder_paths.folder_names_and_paths["sae"]
        assert paths == ["/elsewhere/sae", str(Path(folder_paths.models_dir) / "sae"), str(tmp_path)]
        assert extensions == files.EXTENSIONS
    finally:
        folder_paths.folder_names_and_paths.pop("sae")
        if before is not None:
            folder_paths.folder_names_and_paths["sae"] = before


def test_what_another_pack_registered_stays(files: Any, folder: Path, tmp_path: Path) -> None:
    import folder_paths

    folder_paths.folder_names_and_paths["sae"] = (["/theirs"], {".pt"})
    files.register_folder(tmp_path)
    paths, extensions = folder_paths.folder_names_and_paths["sae"]
    assert paths[0] == "/theirs"
    assert extensions == files.EXTENSIONS | {".pt"}


def test_the_list_holds_saes_only(files: Any, folder: Path, sae: Any, pack: Any) -> None:
    import safetensors.torch

    (folder / "deep").mkdir()
    pack("comfy_revelio.dictionary").save_dictionary(sae().dictionary, folder / "deep" / "good.safetensors")
    safetensors.torch.save_file({"weight": torch.zeros(2)}, folder / "other.safetensors")
    (folder / "torn.safetensors").write_bytes(b"\x00" * 20)
    (folder / "pickle.pt").write_bytes(b"\x80\x02.")
    assert files.listing() == [str(Path("deep") / "good.safetensors")]
    assert files.check("deep/good.safetensors") is None


def test_a_file_that_changes_is_looked_at_again(files: Any, folder: Path, sae: Any, pack: Any) -> None:
    path = folder / "a.safetensors"
    path.write_bytes(b"\x00" * 20)
    assert files.listing() == []
    before = files.fingerprint("a.safetensors")
    pack("comfy_revelio.dictionary").save_dictionary(sae().dictionary, path)
    assert files.listing() == ["a.safetensors"]
    assert files.fingerprint("a.safetensors") != before


def test_a_loaded_sae(files: Any, folder: Path, sae: Any, pack: Any) -> None:
    pack("comfy_revelio.dictionary").save_dictionary(sae().dictionary, folder / "a.safetensors")
    handle = files.load("a.safetensors")
    assert handle.dictionary.hook_point == "middle_block.1"
    assert files.load("a.safetensors", " output_blocks.2.1 ").dictionary.hook_point == "output_blocks.2.1"
    assert handle.patcher.model is handle.dictionary
    assert handle.get_ram_usage() > 96 * 192 * 2 * 4


def test_the_weights_move_as_a_whole(sae: Any) -> None:
    """ComfyUI loads leaf modules with parameters; the buffers of an SAE must move too, and be counted."""
    handle = sae()
    handle.patcher.load(torch.device("meta"), lowvram_model_memory=1 << 40)
    assert handle.dictionary.W_enc.is_meta
    assert handle.dictionary.stats.mean_active.is_meta
    assert handle.patcher.loaded_size() == handle.patcher.model_size() > 0


@pytest.mark.parametrize("name", ["missing.safetensors", "", "../../etc/passwd", "other.safetensors"])
def test_bad_files_get_one_sentence(files: Any, folder: Path, name: str) -> None:
    import safetensors.torch

    safetensors.torch.save_file({"weight": torch.zeros(2)}, folder / "other.safetensors")
    sentence = files.check(name)
    assert sentence
    assert "\n" not in sentence
    assert files.fingerprint(name)
    with pytest.raises(ValueError, match=r"\w"):
        files.load(name)
