"""Files that are cut, padded, malformed or hostile are refused in one sentence, before torch sees them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from comfy_revelio.errors import RevelioError
from comfy_revelio.files import tensor_file


def _raw(path: Path, header: Any, data: bytes = b"\0" * 16, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def _entry(
    start: int = 0, stop: int = 16, shape: list[Any] | None = None, dtype: str = "F32"
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [4] if shape is None else shape, "data_offsets": [start, stop]}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.safetensors"
    tensors = {"a": torch.randn(3, 5).T, "b": torch.arange(4), "c": torch.tensor(2.5, dtype=torch.bfloat16)}
    tensor_file.write(path, tensors, {"note": "hello"})
    header = tensor_file.read_header(path)
    assert header.metadata == {"note": "hello"}
    assert header.tensors["a"] == tensor_file.TensorInfo("F32", (5, 3))
    read = tensor_file.read_tensors(path, ["a", "b", "c"])
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    own = [f".a[1].safetensors.{part}.part" for part in ("x7", "training.x7")]
    others = ["a[1].safetensors", ".a1.safetensors.x7.part", ".b.safetensors.x7.part", ".a[1].safetensors.x7"]
    for name in (*own, *others):
        (tmp_path / name).touch()
    tensor_file.discard_unfinished(tmp_path / "a[1].safetensors")
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    tensor_file.write(path, {"a": torch.zeros(2)}, {})
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_file, "_write_all", full)
    with pytest.raises(RevelioError, match="No space left"):
        tensor_file.write(path, {"a": torch.ones(2)}, {})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


BROKEN: dict[str, Any] = {
    "not json": b"{nonsense",
    "not utf-8": b'{"\xff\xfe": 1}',
    "a list": [],
    "deep nesting": b"[" * 100_000,
    "huge number": b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 16]}}',
    "NaN": b'{"a": NaN}',
    "twice the same name": b'{"a": {"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
    b'"a": {"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": _entry()},
    "entry without shape": {"a": {"dtype": "F32", "data_offsets": [0, 16]}},
    "unknown type": {"a": _entry(dtype="X99")},
    "type that is not text": {"a": _entry() | {"dtype": ["F32"]}},
    "negative shape": {"a": _entry(shape=[-4])},
    "shape of truth values": {"a": _entry(shape=[True, 4])},
    "shape too long": {"a": _entry(shape=[1] * 40 + [4])},
    "shape that overflows": {"a": _entry(shape=[2**40, 2**40])},
    "length against shape": {"a": _entry(shape=[5])},
    "past the end": {"a": _entry(16, 32)},
    "overlap": {"a": _entry(0, 16), "b": _entry(8, 24)},
    "gap": {"a": _entry(0, 8, [2]), "b": _entry(12, 16, [1])},
    "more data than tensors": {"a": _entry(0, 8, [2])},
    "entry written as a list": {"a": ["F32", [4], [0, 16]]},
    "type written as a table": {"a": _entry() | {"dtype": {"F32": None}}},
    "entry with one more field": {"a": _entry() | {"more": 1}},
    "type that old torch lacks": {"a": {"dtype": "F8_E8M0", "shape": [16], "data_offsets": [0, 16]}},
    "empty but endless": {"a": _entry(0, 0, [0, 2**62]), "b": _entry()},
    "long type": {"a": _entry(dtype="x\n" * 10_000)},
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_headers_are_refused(tmp_path: Path, what: str) -> None:
    path = _raw(tmp_path / "x.safetensors", BROKEN[what])
    with pytest.raises(RevelioError, match=r"x\.safetensors") as caught:
        tensor_file.read_header(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**63, 2**64 - 1])
def test_a_wrong_header_length_is_refused(tmp_path: Path, length: int) -> None:
    path = _raw(tmp_path / "x.safetensors", {"a": _entry()}, length=length)
    with pytest.raises(RevelioError, match=r"x\.safetensors"):
        tensor_file.read_header(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 20, 100])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.safetensors"
    tensor_file.write(path, {"a": torch.zeros(8)}, {"m": "n"})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RevelioError, match=r"x\.safetensors"):
        tensor_file.read_header(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(RevelioError, match="There is no file"):
        tensor_file.read_header(tmp_path / "none.safetensors")
    with pytest.raises(RevelioError, match="is a folder"):
        tensor_file.read_header(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RevelioError, match="a file name cannot have such characters"):
        tensor_file.write(tmp_path / name, {}, {})
