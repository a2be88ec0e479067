"""The base directory: complete for ComfyUI, with the pack linked and never harmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.base import FOLDERS, PACK_FOLDER, make_base, remove_base


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    (folder / ".dev").mkdir(parents=True)
    (folder / "__init__.py").write_text("first")
    return folder


def test_holds_everything_comfyui_asks_for(tmp_path: Path, pack: Path) -> None:
    base = make_base(tmp_path / "base", pack=pack)
    assert all((base / name).is_dir() for name in FOLDERS)
    assert (base / "custom_nodes" / PACK_FOLDER / "__init__.py").read_text() == "first"


def test_without_a_pack(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", pack=None)
    assert list((base / "custom_nodes").iterdir()) == []


def test_clean_deletes_old_outputs_and_never_the_pack(tmp_path: Path, pack: Path) -> None:
    base = make_base(tmp_path / "base", pack=pack)
    (base / "output" / "old.png").touch()
    make_base(base, pack=pack)
    assert not (base / "output" / "old.png").exists()
    assert (pack / "__init__.py").read_text() == "first"
    remove_base(base)
    assert (pack / "__init__.py").read_text() == "first"


def test_unclean_keeps_the_users_files_and_mends_the_link(tmp_path: Path, pack: Path) -> None:
    base = make_base(tmp_path / "base", pack=tmp_path)
    (base / "user" / "mine.json").touch()
    make_base(base, pack=pack, clean=False)
    assert (base / "user" / "mine.json").exists()
    assert (base / "custom_nodes" / PACK_FOLDER).resolve() == pack.resolve()


def test_where_links_are_impossible_a_copy_follows_the_pack(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    base = make_base(tmp_path / "base", pack=pack)
    (pack / "__init__.py").write_text("second")
    make_base(base, pack=pack, clean=False)
    copy = base / "custom_nodes" / PACK_FOLDER
    assert (copy / "__init__.py").read_text() == "second"
    assert not (copy / ".dev").exists()
