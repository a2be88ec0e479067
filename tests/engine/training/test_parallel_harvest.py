"""What several processes harvested, merged: every item once, wherever a kill came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.training import parallel_harvest
from comfy_revelio.training.parallel_harvest import merge_parts
from comfy_revelio.training.shards import ShardSet, ShardWriter, Source

SOURCE = Source("mini (0a1b)", "middle.0", "output", 3)


def write(folder: Path, items: list[int], *, shard_items: int = 2, source: Source = SOURCE) -> None:
    with ShardWriter(folder, source, shard_items=shard_items) as writer:
        for item in items:
            for timestep in (900.0, 100.0):
                writer.add(item, timestep, torch.full((4, 3), item + timestep / 1000))
            writer.finish_item(item)


def check(folder: Path, items: list[int]) -> None:
    found = ShardSet(folder).split(0.0)[0].all()
    assert sorted(found.item.tolist()) == sorted(item for item in items for _ in range(8))
    expected = found.item[:, None] + found.timestep[:, None] / 1000
    assert torch.allclose(found.x, expected.expand(-1, 3), atol=1e-2)


def test_parts_become_one(tmp_path: Path) -> None:
    write(tmp_path / "middle.0", [0, 1])
    write(tmp_path / "part-0" / "middle.0", [2, 4, 6])
    write(tmp_path / "part-1" / "middle.0", [3, 5])
    write(tmp_path / "part-1" / "up.1", [3, 5], source=replace(SOURCE, hook_point="up.1"))
    merge_parts(tmp_path)
    check(tmp_path / "middle.0", [0, 1, 2, 3, 4, 5, 6])
    check(tmp_path / "up.1", [3, 5])
    assert not list(tmp_path.glob("part-*"))


@pytest.mark.parametrize("calls", range(6))
def test_killed_while_they_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """After any number of files and manifests were written: the next time brings the rest."""
    write(tmp_path / "middle.0", [0, 1])
    write(tmp_path / "part-0" / "middle.0", [2, 4, 6, 8])
    write(tmp_path / "part-1" / "middle.0", [3, 5])
    left = [calls]

    def killed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return function(*arguments)

        return call

    with monkeypatch.context() as patched:
        for name in ("_link_or_copy", "write_manifest"):
            patched.setattr(parallel_harvest, name, killed(getattr(parallel_harvest, name)))
        with pytest.raises(KeyboardInterrupt):
            merge_parts(tmp_path)
    merge_parts(tmp_path)
    check(tmp_path / "middle.0", [0, 1, 2, 3, 4, 5, 6, 8])


def test_a_shard_of_which_some_items_are_there(tmp_path: Path) -> None:
    write(tmp_path / "middle.0", [0, 1, 2])
    write(tmp_path / "part-0" / "middle.0", [1, 2, 3, 4], shard_items=4)
    merge_parts(tmp_path)
    check(tmp_path / "middle.0", [0, 1, 2, 3, 4])


def test_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(parallel_harvest.os, "link", refused)
    write(tmp_path / "part-0" / "middle.0", [2, 4, 6])
    merge_parts(tmp_path)
    check(tmp_path / "middle.0", [2, 4, 6])


def test_other_activations_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "middle.0", [0, 1])
    write(tmp_path / "part-0" / "middle.0", [2], source=replace(SOURCE, model="another"))
    with pytest.raises(RevelioError, match="other activations: its model"):
        merge_parts(tmp_path)
    check(tmp_path / "middle.0", [0, 1])
    assert (tmp_path / "part-0" / "middle.0" / "manifest.json").is_file()
