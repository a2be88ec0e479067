"""Checkpoints are read exactly; whatever could run code, or take the memory, is refused in a sentence."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import re
import struct
import sys
import types
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comfy_revelio.errors import RevelioError
from comfy_revelio.files.safe_pickle import Stub, read_pickle, reader

CONFIG = "training.config.SDSAERunnerConfig"


def _save_zip(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _save_legacy(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _save_gzip(value: Any) -> bytes:
    return gzip.compress(pickle.dumps(value), compresslevel=1)


SAVERS: dict[str, Callable[[Any], bytes]] = {
    "zip": _save_zip,
    "legacy": _save_legacy,
    "gzip": _save_gzip,
    "plain": pickle.dumps,
    "gzip of zip": lambda value: gzip.compress(_save_zip(value)),
}


def _file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "some.file"  # no reader may go by the extension
    path.write_bytes(data)
    return path


def _read(tmp_path: Path, data: bytes, **options: Any) -> Any:
    return read_pickle(_file(tmp_path, data), **options)


def _refuse(tmp_path: Path, data: bytes, match: str | None = None, **options: Any) -> None:
    with pytest.raises(RevelioError, match=match) as caught:
        _read(tmp_path, data, **options)
    message = str(caught.value)
    assert "some.file" in message and "\n" not in message and len(message) < 600
    assert caught.value.__context__ is None


def _zip(main: bytes, entries: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """A torch.save file made by hand."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in ({"a/data.pkl": main} | (entries or {})).items():
            archive.writestr(name, data)
    return file.getvalue()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        same = type(b) is torch.Tensor and a.dtype == b.dtype and a.shape == b.shape
        return same and bool((a == b).all())
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)


# ---- What must be read exactly


@pytest.mark.parametrize("saver", SAVERS)
def test_all_kinds_of_values_come_back(tmp_path: Path, saver: str) -> None:
    value = {
        "ints": [0, -1, 255, 65536, -(2**31), 2**40, -(2**60)],
        "others": (1.5, float("inf"), True, False, None, "", "text ü λ", b"", b"\0\xff", ()),
        "nested": {"a": {"b": [{"c": (1, (2, (3, 4, 5, 6)))}]}, 7: "seven", None: 0},
        "ordered": OrderedDict(z=1, a=2),
        "config": {
            "device": torch.device("cuda", 1),
            "cpu": torch.device("cpu"),
            "dtype": torch.float32,
            "half": torch.bfloat16,
            "shape": torch.Size([2, 3]),
        },
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "text as long as a chapter": "x" * 70_000,
    }
    assert _same(value, _read(tmp_path, SAVERS[saver](value)))


@pytest.mark.parametrize("saver", SAVERS)
def test_all_types_of_numbers_come_back(tmp_path: Path, saver: str) -> None:
    floats = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    value = {str(dtype): torch.randn(5, 7).to(dtype) for dtype in floats}
    for dtype in [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]:
        value[str(dtype)] = torch.arange(100).to(dtype)
    value["bool"] = torch.tensor([True, False, True])
    assert _same(value, _read(tmp_path, SAVERS[saver](value)))


@pytest.mark.parametrize("saver", SAVERS)
def test_views_have_the_right_values(tmp_path: Path, saver: str) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "transposed": base.T,
        "rows": base[1:3],
        "columns": base[:, ::2],
        "column-major decoder": torch.randn(8, 5).T.contiguous().T,
        "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        "last": base[3, 5],
        "none of it": base[4:],
    }
    assert _same(value, _read(tmp_path, SAVERS[saver](value)))


@pytest.mark.parametrize("saver", ["zip", "legacy"])
def test_tensors_that_share_memory_share_it_again(tmp_path: Path, saver: str) -> None:
    base = torch.arange(10.0)
    read = _read(tmp_path, SAVERS[saver]({"a": base, "b": base[2:], "c": base}))
    assert read["a"] is read["c"]
    read["a"][3] = 99
    assert read["b"][1] == 99


def test_the_result_does_not_depend_on_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, _save_zip(torch.ones(1000)))
    tensor = read_pickle(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert tensor.sum() == 1000


@pytest.mark.parametrize("saver", SAVERS)
def test_a_modules_state_and_its_parameters_come_back(tmp_path: Path, saver: str) -> None:
    module: Any = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    state: Any = module.state_dict()
    read = _read(tmp_path, SAVERS[saver]({"state_dict": state, "parameter": module[0].weight}))
    assert _same(state, read["state_dict"])
    assert read["state_dict"]._metadata == state._metadata
    assert _same(module[0].weight.detach(), read["parameter"])
    assert not read["parameter"].requires_grad


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_binary_protocols_are_read(tmp_path: Path, protocol: int) -> None:
    value = {"a": torch.randn(3), "b": OrderedDict(c=b"\xff\0"), "d": 2**50}
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(value, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        assert _same(value, _read(tmp_path, file.getvalue()))


def test_entries_of_other_versions_of_torch_are_ignored(tmp_path: Path) -> None:
    main = zipfile.ZipFile(io.BytesIO(_save_zip({"a": 1}))).read("archive/data.pkl")
    assert _read(
        tmp_path,
        _zip(main, {"a/version": b"3\n", "a/byteorder": b"little", "a/.data/serialization_id": b"123"}),
    ) == {"a": 1}


def test_tensors_from_a_graphics_card_come_to_the_cpu(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(_save_zip(torch.arange(5.0)))) as archive:
        main, data = archive.read("archive/data.pkl"), archive.read("archive/data/0")
    main = main.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
    assert b"cuda:0" in main
    read = _read(tmp_path, _zip(main, {"a/data/0": data}))
    assert read.device.type == "cpu" and torch.equal(read, torch.arange(5.0))


# ---- Objects of classes that are not loaded


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    @dataclass
    class RunnerConfig:
        device: Any = field(default_factory=lambda: torch.device("cuda"))
        dtype: Any = torch.float32

    @dataclass
    class SDSAERunnerConfig(RunnerConfig):
        model_name: str = "runwayml/stable-diffusion-v1-5"
        module_name: str = "up_ft"
        block_name: int = 1
        timestep: int = 25
        k: int = 32
        d_in: int = 4
        d_sae: int = 8
        lr: float = 4e-4
        checkpoint: Any = None

    package, module = types.ModuleType("training"), types.ModuleType("training.config")
    for cls in (RunnerConfig, SDSAERunnerConfig):
        cls.__module__, cls.__qualname__ = "training.config", cls.__name__
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "training", package)
    monkeypatch.setitem(sys.modules, "training.config", module)
    return SDSAERunnerConfig()


@pytest.mark.parametrize("saver", SAVERS)
def test_a_revelio_checkpoint_is_read_with_its_config_as_a_stub(
    tmp_path: Path, config: Any, saver: str
) -> None:
    weights = {"W_enc": torch.randn(4, 8), "b_enc": torch.zeros(8), "W_dec": torch.randn(8, 4)}
    data = SAVERS[saver]({"cfg": config, "state_dict": weights})
    read = _read(tmp_path, data, stubs=[CONFIG])
    assert _same(weights, read["state_dict"])
    assert type(read["cfg"]) is Stub and read["cfg"].name == CONFIG
    assert read["cfg"].state == vars(config)
    _refuse(tmp_path, data, match=rf"asks for {CONFIG}, which could run code")


def test_only_a_new_object_with_attributes_makes_a_stub(tmp_path: Path) -> None:
    cls = b"ctraining.config\nSDSAERunnerConfig\n"
    read = _read(tmp_path, b"\x80\x02" + cls + b")\x81}X\x01\0\0\0kK\x05sb.", stubs=[CONFIG])
    assert (read.name, read.state) == (CONFIG, {"k": 5})
    for body in (
        cls + b"K\x01\x85\x81.",  # with arguments
        cls + b")R.",  # a call of the class
        b"ccopyreg\n_reconstructor\n" + cls + b"c__builtin__\nobject\nN\x87R.",
        cls + b")\x81]b.",  # state that is not a table
        cls + b")\x81}K\x01K\x02sb.",  # an attribute without a name
        cls + b"}X\x01\0\0\0kK\x05sb.",  # attributes for the class
        cls + b".",  # the class as a value
    ):
        _refuse(tmp_path, b"\x80\x02" + body, stubs=[CONFIG])


# ---- What could run code


class _Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("saver", SAVERS)
def test_code_is_named_and_never_run(tmp_path: Path, canary: Path, saver: str) -> None:
    touch = f"touch {canary}"
    calls: dict[str, _Call] = {
        f"{os.name}.system": _Call(os.system, touch),
        "builtins?.eval": _Call(eval, f"open({str(canary)!r}, 'w')"),
        "builtins?.exec": _Call(exec, f"open({str(canary)!r}, 'w')"),
        "torch.hub.load": _Call(torch.hub.load, str(tmp_path), "x"),
        "torch.serialization.load": _Call(torch.load, str(tmp_path)),
        "builtins?.getattr": _Call(getattr, "a", "upper"),
    }
    for name, call in calls.items():
        name = name.replace("builtins?", r"(builtins|__builtin__)")
        for value in (call, {"state_dict": {"a": torch.ones(2), "b": call}}, [(call,)]):
            _refuse(tmp_path, SAVERS[saver](value), match=rf"asks for [\w.]*{name}, which could run code")


@pytest.mark.parametrize("saver", SAVERS)
def test_code_inside_of_a_saved_storage_is_not_run(tmp_path: Path, canary: Path, saver: str) -> None:
    unpack = torch.storage._load_from_bytes
    for inner in (_save_legacy, _save_zip, pickle.dumps):
        evil = _Call(unpack, inner(_Call(os.system, f"touch {canary}")))
        _refuse(tmp_path, SAVERS[saver]({"a": evil}))
    twice = _Call(unpack, pickle.dumps(_Call(unpack, _save_legacy(torch.zeros(1)._typed_storage()))))
    _refuse(tmp_path, pickle.dumps(twice), match="inside saved tensors")
    _refuse(tmp_path, pickle.dumps(_Call(unpack, pickle.dumps({"a": 1}))), match="unknown form")


def test_a_storage_saved_as_a_zip_is_read_inside_of_a_pickle(tmp_path: Path) -> None:
    tensor = torch.randn(6)
    storage = _Call(torch.storage._load_from_bytes, _save_zip(tensor._typed_storage()))
    saved = _Call(torch._utils._rebuild_tensor_v2, storage, 0, (2, 3), (3, 1), False, OrderedDict())
    assert _same(tensor.reshape(2, 3), _read(tmp_path, pickle.dumps(saved)))


PROGRAMS: dict[str, bytes] = {
    "text opcode": b"(S'echo'\nios\nsystem\n.",
    "object opcode": b"(cos\nsystem\nX\x01\0\0\0ao.",
    "name with a dot": b"\x8c\x05torch\x8c\x0ahub.x.load\x93.",
    "name with a line break": b"\x8c\x03a\nb\x8c\x03c\rd\x93.",
    "very long name": b"\x8c\x03abcX\0\0\x01\0" + b"d" * 65536 + b"\x93.",
    "name that is not text": b"K\x01K\x02\x93.",
    "extension registry": b"\x82\x01.",
    "buffer from outside": b"\x97.",
    "set": b"\x8f.",
    "attributes for a tensor helper": b"ctorch._utils\n_rebuild_tensor\n}X\x01\0\0\0aK\x01sb.",
    "attributes for a class": b"ccollections\nOrderedDict\nN}X\x01\0\0\0aK\x01s\x86b.",
    "other attributes for a state dict": b"ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x01sb.",
    "call of a text": b"X\x01\0\0\0a)R.",
    "call of a type": b"ctorch\nfloat32\n)R.",
    "call of a storage": b"ctorch\nFloatStorage\nK\x10\x85R.",
    "call without a tuple": b"ccollections\nOrderedDict\n]R.",
    "object of a helper": b"ccollections\nOrderedDict\n)\x81.",
    "bare name": b"ctorch.storage\n_load_from_bytes\n.",
    "bare storage type": b"ctorch\nFloatStorage\n.",
    "storage from outside": b"X\x01\0\0\0aQ.",
    "items for a tuple": b")K\x01a.",
    "entries for a list": b"]K\x01K\x02s.",
    "odd entries": b"}(K\x01u.",
    "table with a table as key": b"}}K\x01s.",
    "table with a tuple as key": b"})K\x01s.",
    "nothing": b".",
    "only a mark": b"(.",
    "mark below the floor": b"K\x01K\x02(\x86t.",
    "get before put": b"h\x05.",
    "odd device": b"ctorch\ndevice\nX\x03\0\0\0abc\x85R.",
    "device number": b"ctorch\ndevice\nX\x04\0\0\0cudaJ\xff\xff\xff\xff\x86R.",
    "shape of texts": b"ctorch\nSize\nX\x01\0\0\0a\x85\x85R.",
    "not utf-8": b"X\x02\0\0\0\xff\xfe.",
    "two values": b"NN.",
    "trailing bytes": b"N.N",
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_programs_that_are_not_data_are_refused(tmp_path: Path, what: str) -> None:
    program = b"\x80\x04" + PROGRAMS[what]
    _refuse(tmp_path, program)
    _refuse(tmp_path, gzip.compress(program))
    _refuse(tmp_path, _zip(program))
    head = _save_legacy(None)
    at = head.rindex(b"\x80\x02N.")
    _refuse(tmp_path, head[:at] + program + head[at + 4 :])


# ---- What would take memory or time


def _nested(opening: bytes, level: bytes, closing: bytes = b"", levels: int = 100_000) -> bytes:
    return opening + level * levels + closing * levels + b"."


_ORDERED = b"ccollections\nOrderedDict\n"
BOMBS: dict[str, bytes] = {
    "text longer than the file": b"X\xff\xff\xff\x7f.",
    "long text of 64 bits": b"\x8d" + struct.pack("<Q", 2**62) + b".",
    "bytes longer than the file": b"B\xff\xff\xff\xff.",
    "bytes of 64 bits": b"\x8e" + struct.pack("<Q", 2**62) + b".",
    "byte array": b"\x96" + struct.pack("<Q", 2**62) + b".",
    "frame": b"\x95" + struct.pack("<Q", 2**62) + b".",
    "long number": b"\x8b\xff\xff\xff\x7f.",
    "number of 255 bytes": b"\x8a\xff" + b"\x7f" * 255 + b".",
    "nested lists": _nested(b"]", b"]", b"a"),
    "nested tuples": _nested(b")", b"\x85"),
    "nested tables": _nested(b"}", b"K\0}", b"s"),
    "nested state dicts": _nested(_ORDERED + b"q\0)R", b"}X\x09\0\0\0_metadatah\0)R", b"sb", levels=60_000),
    "list that contains itself": b"]q\0h\0a.",
    "doubled forty times": b"(]q\0" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)) + b"t.",
    "keys with one hash": b"}("
    + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(50_000))
    + b"u.",
    "a key of doubled tuples": b"}K\0\x85q\0"
    + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(60))
    + b"Ns.",
    "three billion zeros": b"c__builtin__\nbytearray\n\x8a\x05"
    + (3 * 10**9).to_bytes(5, "little")
    + b"\x85R.",
    "slow encoding": b"c_codecs\nencode\nX\x02\0\0\0\xc3\xa9X\x08\0\0\0punycode\x86R.",
    "two million numbers": b"](" + b"K\0" * 2_000_000 + b"e.",
    "a name of doubled lists": b"]q\0"
    + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
    + b"X\x01\0\0\0a\x93.",
}


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_are_refused(tmp_path: Path, what: str) -> None:
    _refuse(tmp_path, b"\x80\x04" + BOMBS[what])


def test_a_huge_memo_index_takes_no_memory(tmp_path: Path) -> None:
    assert _read(tmp_path, b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_nested_stubs_are_refused(tmp_path: Path) -> None:
    cls = f"c{CONFIG.rpartition('.')[0]}\n{CONFIG.rpartition('.')[2]}\nq\0"
    level = b"}X\x01\0\0\0ah\0)\x81"
    program = b"\x80\x02" + _nested(cls.encode() + b")\x81", level, b"sb", levels=60_000)
    _refuse(tmp_path, program, match="nested", stubs=[CONFIG])


def test_the_same_storage_unpacked_again_and_again_is_read_once(tmp_path: Path) -> None:
    data = _save_legacy(torch.zeros(250_000)._typed_storage())
    program = b"\x80\x04(ctorch.storage\n_load_from_bytes\nq\0B" + struct.pack("<I", len(data)) + data
    program += b"\x85q\x01](" + b"h\0h\x01R" * 50_000 + b"et."
    _refuse(tmp_path, program, match="a class or a storage where a value belongs")


def _view(*arguments: Any) -> _Call:
    return _Call(torch._utils._rebuild_tensor_v2, *arguments, False, OrderedDict())


@pytest.mark.parametrize("saver", ["zip", "legacy", "plain"])
def test_views_outside_of_their_storage_are_refused(tmp_path: Path, saver: str) -> None:
    storage = torch.arange(12.0)._typed_storage()
    assert _read(tmp_path, SAVERS[saver](_view(storage, 2, (2, 3), (5, 2)))).tolist() == [
        [2, 4, 6],
        [7, 9, 11],
    ]
    for offset, size, stride in (
        (0, (10**6,), (0,)),
        (0, (2, 2), (0, 1)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (5, 5), (1, 1)),
        (0, (13,), (1,)),
        (12, (1,), (1,)),
        (3, (2, 3), (5, 2)),
        (13, (0,), (1,)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (4, (2,), (-1,)),
        (0, (2**63,), (1,)),
        (0, (2,), (2**70,)),
        (0, (1,) * 9, (1,) * 9),
        (0, (2, 2), (1,)),
        (0, [2], [1]),
        (0, (True,), (1,)),
        (0, (2.0,), (1,)),
        ("0", (2,), (1,)),
        (None, (2,), (1,)),
    ):
        _refuse(tmp_path, SAVERS[saver](_view(storage, offset, size, stride)))
    for bad in (_view(None, 0, (1,), (1,)), _view(torch.ones(2), 0, (1,), (1,)), storage):
        _refuse(tmp_path, SAVERS[saver](bad))
    hooks = _Call(torch._utils._rebuild_tensor_v2, storage, 0, (1,), (1,), False, OrderedDict(a=1))
    conjugate = _Call(torch._utils._rebuild_tensor_v2, storage, 0, (1,), (1,), False, None, {"conj": True})
    for bad in (hooks, conjugate, _Call(torch._utils._rebuild_parameter, 1, True, OrderedDict())):
        _refuse(tmp_path, SAVERS[saver](bad))


def test_an_expanded_tensor_and_other_kinds_of_tensors_are_refused(tmp_path: Path) -> None:
    _refuse(tmp_path, _save_zip(torch.zeros(1).expand(1000)), match="repeats")
    _refuse(tmp_path, _save_zip(torch.zeros(2, dtype=torch.complex64)), match=r"ComplexFloatStorage")
    _refuse(tmp_path, _save_zip(torch.eye(3).to_sparse()), match=r"_rebuild_sparse_tensor")
    _refuse(tmp_path, _save_zip(torch.nn.Linear(2, 2)), match=r"torch\.nn\.modules\.linear\.Linear")


NUMBERS = [np.float64(0.1), np.float32(-2.5), np.float16(3), np.int64(-(2**40)), np.int32(7), np.bool_(True)]


@pytest.mark.parametrize("old", [False, True])
def test_single_numbers_of_numpy_are_plain_numbers(tmp_path: Path, old: bool) -> None:
    """The rate of a schedule in a training log is one; both names that NumPy has had for it are known."""
    data = pickle.dumps({"log": NUMBERS}, protocol=2)
    name = b"numpy.core.multiarray" if old else b"numpy._core.multiarray"
    data = re.sub(rb"numpy\._?core\.multiarray", name, data)
    found = _read(tmp_path, data)["log"]
    assert found == [number.item() for number in NUMBERS]
    assert [type(value) for value in found] == [float, float, float, int, int, bool]
    assert _read(tmp_path, _save_zip({"log": NUMBERS}))["log"] == found


def test_other_things_of_numpy_are_refused(tmp_path: Path) -> None:
    kind = np.dtype("f8")
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    for bad in (
        np.zeros(3),
        np.array(["a"])[0],
        np.complex64(1),
        np.dtype(">f8"),
        np.datetime64("2020-01-01"),
        kind,
        _Call(scalar, kind, b"short"),
        _Call(scalar, kind, b""),
        _Call(scalar, kind),
        _Call(scalar, "f8", b"12345678"),
        _Call(scalar, np.dtype("O"), b"12345678"),
        _Call(scalar, np.dtype([("a", "f8")]), b"12345678"),
        _Call(np.dtype, "S1000000000"),
        _Call(np.dtype, ("f8", (10**9,))),
    ):
        for protocol in (2, 4):
            _refuse(tmp_path, pickle.dumps({"a": bad}, protocol))


def test_gzip_bombs_are_refused_early(tmp_path: Path) -> None:
    zeros = gzip.compress(b"\x80\x04B" + struct.pack("<I", 20_000_000) + bytes(20_000_000) + b".")
    _refuse(tmp_path, zeros, match="unpacks to more than")
    noise = _save_gzip({"a": torch.randn(500_000)})
    assert _read(tmp_path, noise)["a"].shape == (500_000,)
    for limit in (len(noise) // 2, len(noise)):
        _refuse(tmp_path, noise, match=f"unpacks to more than {limit} bytes", max_bytes=limit)
    whole = _save_gzip({"a": 1})
    _refuse(tmp_path, whole + whole, match="follows")
    _refuse(tmp_path, whole + b"\0", match="follows")
    _refuse(tmp_path, gzip.compress(whole), match="neither")
    _refuse(tmp_path, whole[:-8] + b"\0" * 8)  # a wrong checksum
    _refuse(tmp_path, b"\x1f\x8b\x08\x08" + b"\0" * 6 + b"n" * 3_000_000, match="cut")  # an endless name


def test_a_large_gzip_of_weights_is_read_where_a_bomb_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights hardly shrink: 81,920 features 1,280 wide unpack to 840 MB from nearly as much."""
    monkeypatch.setattr(reader, "_MAX_UNPACKED_BYTES", 100_000)
    assert _read(tmp_path, _save_gzip({"a": torch.randn(100_000)}))["a"].shape == (100_000,)
    _refuse(tmp_path, _save_gzip({"a": torch.zeros(100_000)}), match="unpacks to more than 100000 bytes")


def test_files_that_are_too_long_are_not_read(tmp_path: Path) -> None:
    path = _file(tmp_path, b"\x80\x02N.")
    os.truncate(path, 5 * 1024**3)
    with pytest.raises(RevelioError, match="bytes long"):
        read_pickle(path)
    _refuse(tmp_path, _save_zip({}), match="bytes long", max_bytes=100)


# ---- Zip files that torch does not write


def _changed(data: bytes, mark: bytes, at: int, new: bytes) -> bytes:
    """The file with some bytes of the first of its headers of this kind replaced."""
    start = data.index(mark) + at
    return data[:start] + new + data[start + len(new) :]


def test_zip_files_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    main = pickle.dumps({"a": 1}, 2)
    good = _zip(main)
    assert _read(tmp_path, good) == {"a": 1}
    _refuse(tmp_path, _zip(main, compression=zipfile.ZIP_DEFLATED), match="compressed")
    _refuse(
        tmp_path, _zip(main, {"a/x": bytes(5_000_000)}, compression=zipfile.ZIP_DEFLATED), match="compressed"
    )
    for name in ("../x", "a/../x", "/a/x", "a//x", "a/./x", "a/b\\x", "x", "a/"):
        _refuse(tmp_path, _zip(main, {name: b""}), match="name that torch never gives")
    _refuse(tmp_path, _zip(main, {"a/xNUL": b""}).replace(b"xNUL", b"x\0UL"), match="never gives")
    _refuse(tmp_path, _zip(main, {"b/x": b""}), match="more than one folder")
    _refuse(tmp_path, _zip(main, {"a/data.pkm": b""}).replace(b"data.pkm", b"data.pkl"), match="same name")
    _refuse(tmp_path, _zip(main, {"a/byteorder": b"big"}), match="big-endian")
    _refuse(tmp_path, _zip(main + b"."), match="follows the end")
    _refuse(tmp_path, _zip(b"\x80\x02N." + bytes(17 * 1024**2)), match="too long")
    _refuse(tmp_path, _zip(main).replace(b"data.pkl", b"data.pkx"), match="without the parts")
    _refuse(tmp_path, _zip(main, {f"a/{i}": b"" for i in range(10_001)}), match="far more entries")
    _refuse(tmp_path, good + b"\0", match="end is missing")
    _refuse(tmp_path, b"PK\x03\x04" + b"\0" * 100, match="end is missing")
    _refuse(tmp_path, b"PK\x03\x04" + good, match="not where it should be")
    central, local, end = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
    for mark, at, new in (
        (central, 8, b"\x01\0"),  # encrypted
        (central, 20, b"\xff\xff\0\0"),  # longer than the file
        (central, 24, b"\xff\xff\0\0"),
        (central, 20, b"\xff\xff\0\0\xff\xff\0\0"),
        (central, 20, b"\xff\xff\xff\xff\xff\xff\xff\xff"),  # 64-bit sizes that are nowhere
        (central, 16, b"\0\0\0\0"),  # checksum
        (central, 28, b"\xff\xff"),  # name longer than the list
        (central, 42, b"\xff\xff\xff\x7f"),  # entry outside of the file
        (central, 42, struct.pack("<I", len(good) - 10)),
        (local, 0, b"PK\x03\x05"),
        (local, 26, b"\x01\0"),
        (local, 28, b"\xff\xff"),
        (end, 8, b"\0\0\0\0"),
        (end, 8, b"\xff\xff\xff\xff"),
        (end, 12, b"\xff\xff\xff\x7f"),
        (end, 16, b"\xff\xff\xff\x7f"),
    ):
        _refuse(tmp_path, _changed(good, mark, at, new))
    hidden = struct.pack("<4s5H3L2H", local, 20, 0, 0, 0, 0, 0, 0, 0, 3, 0) + b"a/y"
    two = _zip(main, {"a/x": hidden, "a/y": b""})
    at = two.rindex(central) + 42
    assert _read(tmp_path, two) == {"a": 1}
    _refuse(tmp_path, two[:at] + struct.pack("<I", two.index(hidden)) + two[at + 4 :], match="overlap")
    _refuse(tmp_path, two[:at] + bytes(4) + two[at + 4 :], match="not where it should be")


def test_storages_that_are_missing_or_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(_save_zip(torch.arange(5.0)))) as archive:
        main, data = archive.read("archive/data.pkl"), archive.read("archive/data/0")
    assert _read(tmp_path, _zip(main, {"a/data/0": data})).tolist() == [0, 1, 2, 3, 4]
    for entries in ({}, {"a/data/1": data}, {"a/data/0": data[:-1]}, {"a/data/0": data + b"\0" * 4}):
        _refuse(tmp_path, _zip(main, entries), match="missing, or not as many")
    legacy = _save_legacy(torch.arange(5.0))
    count = legacy.rindex(struct.pack("<Q", 5))
    for wrong in (4, 6, 2**40, 2**63):
        _refuse(tmp_path, legacy[:count] + struct.pack("<Q", wrong) + legacy[count + 8 :])
    _refuse(tmp_path, legacy + b"\0", match="follows")
    _refuse(tmp_path, re.sub(rb"(little_endianq.)\x88", b"\\1\x89", legacy), match="big-endian")


def test_bytes_that_are_not_bools_become_bools(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(_save_zip(torch.tensor([True, False, True])))) as archive:
        main = archive.read("archive/data.pkl")
    read = _read(tmp_path, _zip(main, {"a/data/0": b"\x00\x02\xff"}))
    assert read.view(torch.uint8).tolist() == [0, 1, 1]


# ---- Cut and damaged files


def _small(saver: str) -> bytes:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5)
    value = {
        "cfg": {"k": 3, "name": "x"},
        "state_dict": layer.state_dict(),
        "T": torch.arange(6).view(2, 3).T,
    }
    return SAVERS[saver](value)


@pytest.mark.parametrize("saver", SAVERS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, saver: str) -> None:
    data = _small(saver)
    for twentieth in range(1, 20):
        _refuse(tmp_path, data[: len(data) * twentieth // 20])
    for cut in (1, 2, 3, 4, 5, len(data) - 1):
        _refuse(tmp_path, data[:cut])


@pytest.mark.parametrize("saver", SAVERS)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, saver: str, canary: Path) -> None:
    choose = random.Random(f"damage {saver}")
    data = _small(saver)
    # The pickle is the part worth damaging: without its checksums, so that the damage gets there.
    inner = gzip.decompress(data) if saver == "gzip" else data
    refused = 0
    for _ in range(200):
        changed = bytearray(inner)
        for _ in range(choose.choice([1, 1, 2, 8])):
            changed[choose.randrange(len(changed))] ^= 1 << choose.randrange(8)
        try:
            _read(tmp_path, bytes(changed))
        except RevelioError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_a_damaged_pickle_in_a_zip_is_read_or_refused(tmp_path: Path) -> None:
    choose = random.Random(1)
    with zipfile.ZipFile(io.BytesIO(_small("zip"))) as archive:
        parts = {name.replace("archive", "a"): archive.read(name) for name in archive.namelist()}
    main = parts.pop("a/data.pkl")
    for _ in range(200):
        changed = bytearray(main)
        changed[choose.randrange(len(changed))] ^= 1 << choose.randrange(8)
        try:
            _read(tmp_path, _zip(bytes(changed), parts))
        except RevelioError as error:
            assert "\n" not in str(error)


def test_a_flipped_bit_in_the_numbers_of_a_zip_is_noticed(tmp_path: Path) -> None:
    tensor = torch.arange(100.0)
    data = _save_zip(tensor)
    at = data.index(tensor.numpy().tobytes()) + 200
    _refuse(tmp_path, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :], match="checksum")


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    _refuse(tmp_path, b"", match="is empty")
    for data in (
        b"{}",
        b"hello, world",
        struct.pack("<Q", 2) + b"{}",
        b"\x89PNG",
        zlib.compress(b"x"),
        b"\x93NUMPY",
    ):
        _refuse(tmp_path, data, match="neither")


def test_paths_that_are_not_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RevelioError, match="There is no file"):
        read_pickle(tmp_path / "none.pt")
    with pytest.raises(RevelioError, match="is a folder"):
        read_pickle(tmp_path)
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    for path in (tmp_path / "loop.pt", tmp_path / ("x" * 5000), tmp_path / "a\0b"):
        with pytest.raises(RevelioError):
            read_pickle(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.pt")
        with pytest.raises(RevelioError, match="not a regular file"):
            read_pickle(tmp_path / "pipe.pt")


def test_too_little_memory_is_an_error_of_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _save_zip(torch.ones(3))
    for error, match in (
        (MemoryError, "memory"),
        (RecursionError, "format"),
        (PermissionError(13, "No"), "No"),
    ):

        def fail(*_: Any, error: Any = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", fail)
            _refuse(tmp_path, data, match=match)
