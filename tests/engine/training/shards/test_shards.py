"""Activations on disk: exact, whole after any kill, and shuffled the same way however they are read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.cli.main import main
from comfy_revelio.dictionary import load_dictionary
from comfy_revelio.files import tensor_file
from comfy_revelio.training import measure
from comfy_revelio.training.shards import Batch, BudgetReached, Items, RowView, ShardSet, ShardWriter, Source
from comfy_revelio.training.shards import manifest as manifests

REPOSITORY = Path(__file__).resolve().parents[4]
SOURCE = Source("mini (0a1b)", "middle.0", "output", 5, (2, 3), {"prompts": "faces"})
TIMESTEPS = (999.0, 500.5)
ITEM_BYTES = 2 * 6 * (5 * 2 + 12)  # of an item of `_harvest` in float16
THREE_ITEMS = 3 * ITEM_BYTES + 100


def _rows(item: int, timestep: float, n: int = 6, d: int = 5) -> Tensor:
    g = torch.Generator().manual_seed(item * 1000 + int(timestep))
    return torch.randn(n, d, generator=g) * 100


def _harvest(folder: Path, items: int = 20, *, pause: float = 0.0, **options: Any) -> None:
    """The same calls every time: two items side by side through two timesteps."""
    options = {"shard_bytes": THREE_ITEMS} | options
    source = options.pop("source", SOURCE)
    with ShardWriter(folder, source, **options) as writer:
        for first in range(0, items, 2):
            for timestep in TIMESTEPS:
                for item in (first, first + 1):
                    writer.add(item, timestep, _rows(item, timestep))
                    time.sleep(pause)
            for item in (first + 1, first):
                writer.finish_item(item)


def _everything(folder: Path) -> Batch:
    return ShardSet(folder).split(0.0)[0].all()


def _check_harvest(folder: Path, items: range, dtype: torch.dtype = torch.float16) -> None:
    """Every row of the items is there once, as it went in."""
    found = _everything(folder)
    expected = {(i, t): _rows(i, t).to(dtype).float() for i in items for t in TIMESTEPS}
    keys = zip(found.item.tolist()[::6], found.timestep.tolist()[::6], strict=True)
    maps = dict(zip(keys, found.x.split(6), strict=True))
    assert len(found.x) == 6 * len(expected) and maps.keys() == expected.keys()
    assert all(torch.equal(maps[key], expected[key]) for key in expected)
    assert torch.equal(found.item, found.item[::6].repeat_interleave(6))


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _plain(folder: Path, items: int, per_item: int, d: int = 3, shard_rows: int = 10**6) -> ShardSet:
    """Rows whose first number is their own, d wide, with the item as timestep."""
    source = Source("m", "h", "diff", d)
    with ShardWriter(folder, source, dtype=torch.float32, shard_bytes=shard_rows * (4 * d + 12)) as writer:
        for item in range(items):
            rows = torch.zeros(per_item, d)
            rows[:, 0] = torch.arange(item * per_item, (item + 1) * per_item)
            writer.add(item, float(item), rows)
            writer.finish_item(item)
    return ShardSet(folder)


def _whole(shards: ShardSet) -> RowView:
    return shards.split(0.0)[0]


def _run_here(function: str, *arguments: str) -> str:
    """Call a function of this file in a fresh process and give what it prints."""
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1]); "
        "runpy.run_path(sys.argv[2])[sys.argv[3]](*sys.argv[4:])"
    )
    command = [sys.executable, "-c", code, str(REPOSITORY), __file__, function, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=os.sep)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Writing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_come_back_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    _harvest(tmp_path, dtype=dtype)
    _check_harvest(tmp_path, range(20), dtype)
    shards = ShardSet(tmp_path)
    assert (shards.source, shards.d_model, shards.n_items, shards.n_rows) == (SOURCE, 5, 20, 240)
    files = sorted(tmp_path.glob("rows-*"))
    assert shards.bytes == sum(path.stat().st_size for path in files)
    index = torch.tensor([239, 3, 100, 3, 0])
    found, everything = shards.rows(index), _everything(tmp_path)
    assert torch.equal(found.x, everything.x[index]) and found.x.dtype == torch.float32
    assert torch.equal(found.item, everything.item[index])
    assert torch.equal(found.timestep, everything.timestep[index])
    none = shards.rows(index[:0])
    assert none.x.shape == (0, 5) and len(none.item) == len(none.timestep) == 0
    whole_file = tensor_file.read_tensors(files[0], ["x", "timestep", "item"])
    assert whole_file["x"].dtype == dtype
    assert len(whole_file["item"].unique()) == len(whole_file["item"]) // 12


def test_shards_hold_whole_items_and_keep_to_their_size(tmp_path: Path) -> None:
    _harvest(tmp_path)
    manifest = manifests.read_manifest(tmp_path)
    assert [shard.rows for shard in manifest.shards] == [36] * 6 + [24]
    assert [shard.items.ranges for shard in manifest.shards[:2]] == [((0, 1), (3, 3)), ((2, 2), (4, 5))]
    for shard in manifest.shards:
        item = tensor_file.read_tensors(tmp_path / shard.name, ["item"])["item"]
        assert item.unique().tolist() == list(shard.items) and bool((item.bincount()[item] == 12).all())
    large = tmp_path / "one item is larger than a shard"
    _harvest(large, items=4, shard_bytes=10)
    assert ShardSet(large).n_items == 4 and len(list(large.glob("rows-*"))) == 4


def test_the_memory_of_the_caller_may_be_used_again(tmp_path: Path) -> None:
    rows = torch.ones(6, 5, dtype=torch.float16)
    with ShardWriter(tmp_path, SOURCE) as writer:
        writer.add(0, 1.0, rows)
        rows.zero_()
        writer.finish_item(0)
    assert bool((_everything(tmp_path).x == 1).all())


def test_the_same_harvest_again_changes_nothing_and_a_longer_one_continues(tmp_path: Path) -> None:
    _harvest(tmp_path, items=8)
    before = _content(tmp_path)
    _harvest(tmp_path, items=8)
    assert _content(tmp_path) == before
    with ShardWriter(tmp_path, SOURCE) as writer:
        assert writer.done_items == set(range(8)) and 8 not in writer.done_items
    _harvest(tmp_path, items=20)
    _check_harvest(tmp_path, range(20))
    assert before.items() - {("manifest.json", before["manifest.json"])} <= _content(tmp_path).items()


MOMENTS = (
    ("rows-000000.safetensors", "before"),
    ("rows-000001.safetensors", "after"),
    ("manifest.json", "before"),
    ("manifest.json", "after"),
    ("", "anywhere"),
)


def _harvest_and_die(folder: Path, name: str, when: str) -> None:
    real = os.replace

    def deadly(source: Any, target: Any) -> None:
        if Path(target).name == name:
            if when == "after":
                real(source, target)
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = deadly
    _harvest(folder, pause=0.0 if name else 0.02)


def die_often(path: str) -> None:
    """One harvest after the other, each killed at another moment; runs in a process of its own."""
    folder, done = Path(path), 0
    for name, when in MOMENTS:
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                _harvest_and_die(folder, name, when)
            os._exit(1)
        if not name:
            while not (folder / "rows-000002.safetensors").exists():
                time.sleep(0.01)
            time.sleep(0.05)  # somewhere in the next items
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (name, when)
        shards = ShardSet(folder)
        assert shards.n_items >= done, (name, when)
        done = shards.n_items
        print(done, *sorted(file.name for file in folder.iterdir()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills its own children")
def test_killed_at_any_moment_the_harvest_resumes_without_duplicates_or_holes(tmp_path: Path) -> None:
    killed, clean = tmp_path / "killed", tmp_path / "clean"
    states = _run_here("die_often", str(killed)).splitlines()
    assert states[0].startswith("0 .rows-000000.safetensors.") and "rows-000001" in states[1]
    assert ".manifest.json.part" in states[2] and [int(s.split()[0]) for s in states[:4]] == [0, 3, 3, 6]
    _harvest(killed)
    _harvest(clean)
    assert _content(killed) == _content(clean)
    _check_harvest(killed, range(20))


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    _harvest(tmp_path, items=4)
    before = _content(tmp_path)
    for name in ("rows-000007.safetensors", ".rows-000001.safetensors.x1_y.part", ".manifest.json.part"):
        (tmp_path / name).write_bytes(b"half")
    others = ("notes.txt", "rows-7.safetensors", "other.part", "rows-000001.safetensors.bak")
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    ShardWriter(tmp_path, SOURCE).close()
    assert _content(tmp_path) == before | dict.fromkeys(others, b"mine")


def test_shards_without_a_manifest_are_nobodys_to_delete(tmp_path: Path) -> None:
    (tmp_path / "rows-000000.safetensors").write_bytes(b"somebody's")
    with pytest.raises(RevelioError, match="without their manifest"):
        ShardWriter(tmp_path, SOURCE)
    assert _content(tmp_path) == {"rows-000000.safetensors": b"somebody's"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "other"}, r"its model is 'mini \(0a1b\)', not 'other'"),
        ({"hook_point": "up.1", "captured": "diff"}, "its hook_point is 'middle.0', not 'up.1'"),
        ({"captured": "diff"}, "its captured is 'output', not 'diff'"),
        ({"d_model": 6}, "its d_model is 5, not 6"),
        ({"grid": None}, r"its grid is \(2, 3\), not None"),
        ({"extra": {"prompts": "faces", "a": "b"}}, "its extra 'a' is None, not 'b'"),
    ],
)
def test_another_source_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    _harvest(tmp_path, items=2)
    (tmp_path / ".manifest.json.part").touch()
    before = _content(tmp_path)
    with pytest.raises(RevelioError, match=told):
        ShardWriter(tmp_path, replace(SOURCE, **change))
    with pytest.raises(RevelioError, match="its dtype is float16, not float32"):
        ShardWriter(tmp_path, SOURCE, dtype=torch.float32)
    assert _content(tmp_path) == before


def test_the_budget_stops_the_harvest_with_everything_whole(tmp_path: Path) -> None:
    budget = 7000
    for _ in range(2):  # the second time there is no room from the start
        with pytest.raises(BudgetReached, match=r"budget of \d+ bytes with \d+ items"):
            _harvest(tmp_path, budget_bytes=budget)
        shards = ShardSet(tmp_path)
        assert 8 < shards.n_items < 20 and budget - 3500 < shards.bytes <= budget
        assert shards.n_rows == 12 * shards.n_items
    _harvest(tmp_path)
    _check_harvest(tmp_path, range(20))


def test_after_the_budget_nothing_more_is_added(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, SOURCE, budget_bytes=3000)
    writer.add(0, 1.0, _rows(0, 1.0))
    writer.finish_item(0)
    for item in (1, 2):
        with pytest.raises(BudgetReached):
            for timestep in range(10):
                writer.add(item, timestep, _rows(item, timestep))
    assert writer.done_items == {0}
    writer.close()


def test_a_full_disk_is_reported_and_damages_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    _harvest(tmp_path, items=4)
    before = _content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "_write_all", full)
        with pytest.raises(RevelioError, match=r"rows-000002\.safetensors cannot be written \(No space left"):
            _harvest(tmp_path)
    assert _content(tmp_path) == before
    with monkeypatch.context() as patch:
        patch.setattr(manifests.Path, "write_bytes", full)
        with pytest.raises(RevelioError, match=r"manifest\.json cannot be written \(No space left"):
            _harvest(tmp_path)
    assert ShardSet(tmp_path).n_items == 4
    _harvest(tmp_path)
    _check_harvest(tmp_path, range(20))


def test_an_interrupt_saves_the_whole_items(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, SOURCE) as writer:
        for item in (3, 1):
            writer.add(item, 1.0, _rows(item, 1.0))
        writer.finish_item(3)
        raise KeyboardInterrupt
    assert writer.done_items == {3} and ShardSet(tmp_path).n_rows == 6


def test_numbers_too_large_for_the_type_are_never_stored_as_infinite(tmp_path: Path) -> None:
    rows = torch.full((6, 5), 65504.0)
    rows[4, 2] = -70000.0
    with pytest.raises(RevelioError, match="up to 70000, but the largest float16 is 65504; store them as"):
        ShardWriter(tmp_path / "half", SOURCE).add(0, 1.0, rows)
    for dtype in (torch.bfloat16, torch.float32):
        with ShardWriter(tmp_path / str(dtype), SOURCE, dtype=dtype) as writer:
            writer.add(0, 1.0, rows)
            writer.finish_item(0)
        assert torch.equal(_everything(tmp_path / str(dtype)).x, rows.to(dtype).float())
    for value in (torch.inf, torch.nan):
        rows[0, 0] = value
        with pytest.raises(RevelioError, match="Item 0 at timestep 1 has activations that are not finite"):
            ShardWriter(tmp_path / "half", SOURCE).add(0, 1.0, rows)


def test_wrong_calls_are_reported(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, SOURCE)
    good = _rows(0, 1.0)
    for rows in (good[:, :4], good[0], good[:0], good.long(), good[None]):
        with pytest.raises(RevelioError, match=r"must be floating-point numbers \[n, 5\]"):
            writer.add(0, 1.0, rows)
    with pytest.raises(RevelioError, match=r"has 4 tokens, but .* grid of \(2, 3\)"):
        writer.add(0, 1.0, good[:4])
    with pytest.raises(RevelioError, match="has the timestep nan, which is out of range"):
        writer.add(0, float("nan"), good)
    with pytest.raises(RevelioError, match="not a valid item number"):
        writer.add(-1, 1.0, good)
    with pytest.raises(RevelioError, match="has no rows"):
        writer.finish_item(0)
    writer.add(0, 1.0, good)
    writer.finish_item(0)
    with pytest.raises(RevelioError, match="was finished before"):
        writer.add(0, 1.0, good)
    writer.add(1, 1.0, good)
    with pytest.raises(RevelioError, match="Item 1 was begun but not finished"):
        writer.close()
    assert ShardSet(tmp_path).n_items == 1
    with pytest.raises(RevelioError, match="stored as one of"):
        ShardWriter(tmp_path, SOURCE, dtype=torch.float64)
    (tmp_path / "file").touch()
    with pytest.raises(RevelioError, match="choose another folder"):
        ShardWriter(tmp_path / "file", SOURCE)
    with pytest.raises(RevelioError, match="captured"):
        replace(SOURCE, captured="input")


def test_item_ranges_are_sets() -> None:
    items = Items.of([5, 1, 2, 3, 9])
    assert items.ranges == ((1, 3), (5, 5), (9, 9)) and items == {1, 2, 3, 5, 9}
    assert [i for i in range(12) if i in items] == list(items) and len(items) == 5
    assert items & {2, 9, 10} == {2, 9} and not Items()


# Broken folders


def _at(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        *parents, last = path
        entry: Any = table
        for parent in parents:
            entry = entry[parent]
        entry[last] = entry[value] if isinstance(value, int) and isinstance(entry, list) else value

    return change


HOSTILE: dict[str, Any] = {
    "empty": b"",
    "cut": b'{"format": "activations"',
    "a list": b"[]",
    "no text": b"\xff\xfe\x00",
    "bottomless": b"[" * 100_000,
    "a huge number": b'{"version": ' + b"9" * 5000 + b"}",
    "NaN": b'{"version": NaN}',
    "a name twice": b'{"version": 1, "version": 1}',
    "another format": _at(("format",), "models"),
    "a later version": _at(("version",), 2),
    "something more": _at(("command",), "rm"),
    "source as a list": _at(("source",), []),
    "source with more": _at(("source", "path"), "x"),
    "no model": _at(("source", "model"), None),
    "another captured": _at(("source", "captured"), ["output"]),
    "no width": _at(("source", "d_model"), 0),
    "another width": _at(("source", "d_model"), 6),
    "width as text": _at(("source", "d_model"), "5"),
    "endless width": _at(("source", "d_model"), 2**62),
    "half a grid": _at(("source", "grid"), [2]),
    "a grid of text": _at(("source", "grid"), "23"),
    "a negative grid": _at(("source", "grid"), [-2, -3]),
    "extra numbers": _at(("source", "extra"), {"a": 1}),
    "extra list": _at(("source", "extra"), ["a"]),
    "unknown dtype": _at(("dtype",), "float64"),
    "dtype as a list": _at(("dtype",), ["float16"]),
    "another dtype": _at(("dtype",), "bfloat16"),
    "shards as a table": _at(("shards",), {}),
    "a shard as a list": _at(("shards",), [["name", "rows", "items"]]),
    "a way out": _at(("shards", 0, "name"), "../rows-000000.safetensors"),
    "an absolute name": _at(("shards", 0, "name"), "/tmp/rows-000000.safetensors"),
    "a line more": _at(("shards", 0, "name"), "rows-000000.safetensors\n"),
    "other digits": _at(("shards", 0, "name"), "rows-٠٠٠٠٠٠.safetensors"),
    "a number as name": _at(("shards", 0, "name"), 0),
    "a missing shard": _at(("shards", 0, "name"), "rows-000008.safetensors"),
    "the other shard": _at(("shards", 1, "name"), "rows-000000.safetensors"),
    "the same shard twice": _at(("shards", 1), 0),
    "rows as text": _at(("shards", 0, "rows"), "36"),
    "rows as truth": _at(("shards", 0, "rows"), True),
    "fewer rows": _at(("shards", 0, "rows"), 35),
    "endless rows": _at(("shards", 0, "rows"), 2**61),
    "no items": _at(("shards", 0, "items"), []),
    "items as text": _at(("shards", 0, "items"), "0-3"),
    "endless items": _at(("shards", 0, "items"), [[0, 2**61]]),
    "too many items": _at(("shards", 0, "items"), [[100, 140]]),
    "backward items": _at(("shards", 0, "items"), [[3, 0]]),
    "negative items": _at(("shards", 0, "items"), [[-1, 3]]),
    "items twice in a shard": _at(("shards", 0, "items"), [[0, 3], [2, 3]]),
    "items of another shard": _at(("shards", 0, "items"), [[2, 2]]),
    "fractions of items": _at(("shards", 0, "items"), [[0.0, 1.5]]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_manifests_are_refused(tmp_path: Path, what: str) -> None:
    _harvest(tmp_path, items=6)
    path, change = tmp_path / "manifest.json", HOSTILE[what]
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        table = json.loads(path.read_bytes())
        change(table)
        path.write_text(json.dumps(table))
    before = _content(tmp_path)
    for open_it in (ShardSet, lambda folder: ShardWriter(folder, SOURCE)):
        with pytest.raises(RevelioError, match=r"manifest|contains other activations") as told:
            open_it(tmp_path)
        assert "\n" not in str(told.value)
    assert _content(tmp_path) == before


def test_a_manifest_that_names_other_items_is_found_out(tmp_path: Path) -> None:
    _harvest(tmp_path, items=6)
    path = tmp_path / "manifest.json"
    table = json.loads(path.read_bytes())
    table["shards"][0]["items"] = [[100, 102]]
    path.write_text(json.dumps(table))
    with pytest.raises(RevelioError, match="contains other items"):
        ShardSet(tmp_path).split()


def test_missing_cut_and_linked_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    _harvest(folder, items=6)
    shard, manifest, away = folder / "rows-000000.safetensors", folder / "manifest.json", tmp_path / "away"
    whole = shard.read_bytes()
    view = _whole(ShardSet(folder))
    shard.write_bytes(whole[:-1])
    with pytest.raises(RevelioError, match="not a complete"):
        ShardSet(folder)
    with pytest.raises(RevelioError, match="not a complete"):
        ShardWriter(folder, SOURCE)
    with pytest.raises(RevelioError, match="has become shorter"):
        view.all()
    shard.write_bytes(whole)
    for path in (shard, manifest):
        path.rename(away)
        with pytest.raises(RevelioError, match=r"(no|not a) regular file"):
            ShardSet(folder)
        path.symlink_to(away)
        with pytest.raises(RevelioError, match=r"(no|not a) regular file"):
            ShardSet(folder)
        path.unlink()
        away.rename(path)
    assert ShardSet(folder).n_items == 6
    with pytest.raises(RevelioError, match=r"(no|not a) regular file"):
        ShardSet(tmp_path / "nowhere")


# Reading

SMALL = 1000 * (3 * 4 + 12 + 32)  # a buffer for 1000 rows of `_plain`


@pytest.mark.parametrize("buffer", [SMALL, 2**29])
def test_an_epoch_shows_every_row_once_in_an_order_of_its_own(tmp_path: Path, buffer: int) -> None:
    shards = _plain(tmp_path, items=60, per_item=57, shard_rows=700)
    view = _whole(shards)
    per_epoch = 3420 // 100
    seen = list(islice(view.batches(100, seed=4, buffer_bytes=buffer), 2 * per_epoch))
    first, second = (torch.cat([b.x[:, 0] for b in part]) for part in (seen[:per_epoch], seen[per_epoch:]))
    for epoch in (first, second):
        assert len(epoch) == 3400 and len(epoch.unique()) == 3400
    assert not torch.equal(first, second)
    batch = seen[5]
    assert batch.x.dtype == batch.timestep.dtype == torch.float32 and batch.item.dtype == torch.int64
    assert torch.equal(batch.x[:, 0].long() // 57, batch.item)
    assert torch.equal(batch.timestep.long(), batch.item)
    exact = list(islice(_whole(shards).batches(57, seed=1, buffer_bytes=buffer), 60))
    assert torch.cat([b.x[:, 0] for b in exact]).sort().values.tolist() == list(range(3420))


@pytest.mark.parametrize("buffer", [SMALL, 2**29])
def test_items_are_well_mixed(tmp_path: Path, buffer: int) -> None:
    view = _whole(_plain(tmp_path, items=60, per_item=57, shard_rows=700))
    batches = list(islice(view.batches(100, seed=0, buffer_bytes=buffer), 34))
    # Of 60 items a fair draw of 100 rows has 49; blocks of 15 rows in a buffer of 1000 have a little less.
    assert min(len(b.item.unique()) for b in batches) > 25
    assert all(18 < float(b.item.float().mean()) < 41 for b in batches)
    order = torch.cat([b.x[:, 0] for b in batches])
    folder = torch.arange(len(order), dtype=torch.float32)
    assert abs(float(torch.corrcoef(torch.stack([order, folder]))[0, 1])) < 0.1
    neighbours = float((order.diff().abs() <= 1).float().mean())
    assert neighbours < 0.01


def test_batches_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    shards = _plain(tmp_path, items=60, per_item=57, shard_rows=700)

    def numbers(start: int, seed: int = 3, **options: Any) -> list[list[float]]:
        batches = _whole(shards).batches(130, seed=seed, start=start, buffer_bytes=SMALL, **options)
        return [b.x[:, 0].tolist() for b in islice(batches, 60 - start)]

    whole = numbers(0)  # 26 batches an epoch, so more than two of them
    for start in (1, 7, 25, 26, 27, 59):
        assert numbers(start) == whole[start:]
    assert numbers(50, seed=2) != whole[50:]
    for world in (2, 3):
        shares = [numbers(20, rank=rank, world=world) for rank in range(world)]
        assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole[20:]
        assert max(len(part) for share in shares for part in share) == -(-130 // world)


def test_the_sides_of_a_split_share_no_item_and_stay_when_items_come(tmp_path: Path) -> None:
    def sides(items: int) -> tuple[set[int], set[int]]:
        views = _plain(tmp_path, items, per_item=2, shard_rows=64).split(0.2)
        train, held_out = (set(view.all().item.tolist()) for view in views)
        assert train | held_out == set(range(items)) and not train & held_out
        assert views[0].n_rows == 2 * len(train) and views[1].n_rows == 2 * len(held_out)
        return train, held_out

    before, after = sides(300), sides(500)
    assert before[0] < after[0] and before[1] < after[1]
    assert 0.14 < len(after[1]) / 500 < 0.26
    held_out = ShardSet(tmp_path).split(0.2)[1]
    batches = islice(held_out.batches(10, seed=0), held_out.n_rows // 10)
    seen = torch.cat([b.item for b in batches])
    assert set(seen.tolist()) <= after[1] and len(seen) == held_out.n_rows // 10 * 10


def test_a_limited_subset_is_spread_over_all_and_always_the_same(tmp_path: Path) -> None:
    view = _whole(_plain(tmp_path, items=50, per_item=20))
    subset = view.all(200, seed=1)
    numbers = subset.x[:, 0]
    assert len(numbers.unique()) == 200 and 480 < float(numbers.mean()) < 520
    assert len(subset.item.unique()) == 50 and len((numbers % 5).unique()) == 5
    assert torch.equal(view.all(200, seed=1).x, subset.x)
    assert not torch.equal(view.all(200, seed=2).x, subset.x)
    assert torch.equal(view.all(10**6).x[:, 0], torch.arange(1000.0)) and view.all(999).x.shape == (999, 3)


def test_what_cannot_be_read_is_reported(tmp_path: Path) -> None:
    shards = _plain(tmp_path / "some", items=3, per_item=4)
    view, nothing = shards.split(0.0)
    ShardWriter(tmp_path / "none", SOURCE).close()
    empty = ShardSet(tmp_path / "none")
    assert (empty.n_rows, empty.n_items, empty.bytes, empty.split()[1].n_rows) == (0, 0, 0, 0)
    for index in (torch.tensor([12]), torch.tensor([-1, 3])):
        with pytest.raises(RevelioError, match="numbered from 0 to 11"):
            shards.rows(index)
    for index in (torch.tensor([1.0]), torch.tensor([[1]]), torch.tensor([True])):
        with pytest.raises(RevelioError, match="one-dimensional tensor of integers"):
            shards.rows(index)
    with pytest.raises(RevelioError, match="from 0 to below 1"):
        shards.split(1.0)
    for none in (nothing, empty.split()[0]):
        with pytest.raises(RevelioError, match="no activations"):
            none.all()
        with pytest.raises(RevelioError, match="0 rows, too few for a batch of 4"):
            none.batches(4, seed=0)
    with pytest.raises(RevelioError, match="12 rows, too few for a batch of 13"):
        view.batches(13, seed=0)
    for rank, world, batch in ((2, 2, 4), (-1, 1, 4), (0, 5, 4), (0, 1, 0)):
        with pytest.raises(RevelioError, match="has no share"):
            view.batches(batch, seed=0, rank=rank, world=world)
    with pytest.raises(RevelioError, match="-1 is not a batch"):
        view.batches(4, seed=0, start=-1)


HUGE_GB = int(os.environ.get("REVELIO_HUGE_GB", "2"))
"""Size of the set that is larger than memory; more is only slower."""
HUGE_WIDTH, HUGE_ITEM = 1024, 1000
HUGE_ROWS = HUGE_GB * 500_000


def _huge(folder: Path) -> None:
    """A set of 2 GB or more, of which only some rows are on disk: one in twenty; the others are 0."""
    header, end, starts = {}, 0, {}
    for name, dtype, shape, width in (
        ("item", "I64", [HUGE_ROWS], 8),
        ("timestep", "F32", [HUGE_ROWS], 4),
        ("x", "F16", [HUGE_ROWS, HUGE_WIDTH], 2 * HUGE_WIDTH),
    ):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + HUGE_ROWS * width]}
        starts[name] = end
        end += HUGE_ROWS * width
    text = json.dumps(header).encode()
    block = torch.randn(500, HUGE_WIDTH, generator=torch.Generator().manual_seed(0)).half().numpy().tobytes()
    folder.mkdir()
    with (folder / "rows-000000.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write((torch.arange(HUGE_ROWS) // HUGE_ITEM).numpy().tobytes())
        for row in range(0, HUGE_ROWS, 10_000):
            file.seek(8 + len(text) + starts["x"] + row * 2 * HUGE_WIDTH)
            file.write(block)
        file.truncate(8 + len(text) + end)
    shard = manifests.Shard("rows-000000.safetensors", HUGE_ROWS, Items.of(range(HUGE_ROWS // HUGE_ITEM)))
    source = Source("m", "h", "output", HUGE_WIDTH)
    manifests.write_manifest(folder, manifests.Manifest(source, "float16", (shard,)))


def _status(name: str) -> int:
    """A figure of this process in bytes, such as VmRSS."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def read_huge(folder: str) -> None:
    """Print by how much reading made this process grow at its peak."""
    before = _status("VmRSS")
    batches = _whole(ShardSet(folder)).batches(6000, seed=1)
    assert all(batch.x.shape == (6000, HUGE_WIDTH) for batch in islice(batches, 50))
    print(_status("VmHWM") - before)


def train_huge(folder: str) -> None:
    """Train on the command line, through all rows if there are more than usual; print the peak memory."""
    steps = 20 if HUGE_GB <= 3 else HUGE_ROWS // 8192
    settings = [
        "--n-features",
        "128",
        "--k",
        "8",
        "--batch",
        "8192",
        "--steps",
        str(steps),
        "--device",
        "cpu",
    ]
    with contextlib.redirect_stdout(sys.stderr):
        assert main(["train", folder, f"{folder}.safetensors", *settings]) == 0
    print(_status("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory the Linux way")
def test_a_set_larger_than_memory_is_trained_on_in_little(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    _huge(folder)
    table = {str(item): "a cat" if item % 3 else "a dog" for item in range(HUGE_ROWS // HUGE_ITEM)}
    (tmp_path / "prompts.json").write_text(json.dumps(table))
    growth = int(_run_here("read_huge", str(folder)))
    assert 2**28 < growth < 2**30
    peak = int(_run_here("train_huge", str(folder)))
    print(f"trained on {HUGE_GB} GB with {peak / 1e9:.2f} GB of memory")
    assert peak < 3e9
    assert measure(load_dictionary(f"{folder}.safetensors"), torch.zeros(4, HUGE_WIDTH))["measured_rows"] == 4
