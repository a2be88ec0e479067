"""Five hundred broken and hostile files of all layouts: each is refused in a sentence, none runs anything."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy_revelio.dictionary import load_dictionary, save_dictionary
from comfy_revelio.dictionary.sources import REVELIO_CONFIG
from comfy_revelio.errors import RevelioError
from comfy_revelio.files.safe_pickle import read_pickle

sys.path.insert(0, str(Path(__file__).parent))
from test_layouts import LAYOUTS

COUNT = 500
SECONDS = 5.0
BYTES = 2**30


class Payload:
    """Unpickled freely, it would touch the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f'touch "{self.canary}"',)


Break = Callable[[Path, random.Random, Path], None]
"""Spoils the weights file of a checkpoint; the last argument is the canary."""


def truncate(file: Path, rng: random.Random, _: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data))])


def flip_structure(file: Path, rng: random.Random, _: Path) -> None:
    """Flip a bit where files say what they hold: the first or the last kilobyte of anything."""
    data = bytearray(file.read_bytes())
    length = 8 + int.from_bytes(data[:8], "little") if file.suffix == ".safetensors" else 60
    if file.suffix == ".safetensors" and rng.random() < 0.5:
        data[rng.randrange(8)] ^= 1 << rng.randrange(8)
    else:
        # brackets and colons of the JSON header, or the magic bytes of zip and gzip
        marks = [n for n in range(8, min(length, len(data))) if data[n] in b'{}[]":'] or [0, 1]
        places = marks if file.suffix == ".safetensors" else [0, 1]
        data[rng.choice(places)] ^= 0x80
    file.write_bytes(bytes(data))


def payload(file: Path, rng: random.Random, canary: Path) -> None:
    content = {"state_dict": Payload(canary), "k": 3}
    if rng.random() < 0.5:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))


def nested_payload(file: Path, rng: random.Random, canary: Path) -> None:
    """A sound dictionary with something extra in it."""
    content = {
        "state_dict": {"pre_bias": torch.zeros(3), "latent_bias": torch.zeros(4), "x": Payload(canary)}
    }
    torch.save(content, file)


def huge_header(file: Path, rng: random.Random, _: Path) -> None:
    size = rng.choice([2**62, 2**40, 2**33, 200_000_000])
    file.write_bytes(struct.pack("<Q", size) + b"{" * 2000)


def huge_tensor(file: Path, rng: random.Random, _: Path) -> None:
    header = {"W_dec": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * rng.randrange(100))


def bomb(file: Path, rng: random.Random, _: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {}}))
        archive.writestr("archive/data/0", b"\0" * 20_000_000)


def other_names(file: Path, rng: random.Random, _: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(rng.choice(["../data.pkl", "/data.pkl", "a/../../data.pkl"]), pickle.dumps({}))


def noise(file: Path, rng: random.Random, _: Path) -> None:
    file.write_bytes(rng.randbytes(rng.randrange(1, 4000)))


def empty(file: Path, rng: random.Random, _: Path) -> None:
    file.write_bytes(b"")


def tensors_of(file: Path) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return load_file(file)
    content = read_pickle(file, stubs=(REVELIO_CONFIG,))
    for name in ("state_dict", "model_state_dict"):
        content = content.get(name, content)
    return dict(content)


def reshaped(file: Path, rng: random.Random, _: Path) -> None:
    """A tensor of another shape, type or content, or one too many or too few, under the same names."""
    if file.suffix == ".gz":
        return truncate(file, rng, _)
    tensors = {n: t for n, t in tensors_of(file).items() if isinstance(t, torch.Tensor)}
    name = rng.choice([n for n, t in tensors.items() if t.is_floating_point() and t.ndim and n not in UNUSED])
    old = tensors[name].clone()
    spoils: list[Callable[[], dict[str, Any]]] = [
        lambda: tensors | {name: old.new_zeros(*(size + 1 for size in old.shape))},
        lambda: tensors | {name: old[None].contiguous()},
        lambda: tensors | {name: old.long()},
        lambda: tensors | {name: torch.full_like(old, torch.nan)},
        lambda: {n: t for n, t in tensors.items() if n != name},
        lambda: tensors | {f"{name}.more": old},
    ]
    spoilt = rng.choice(spoils)()
    if file.suffix == ".safetensors":
        save_file(spoilt, file)
        return None
    key = "model_state_dict" if file.name == "sae_best.pt" else "state_dict"
    torch.save(spoilt if file.name in ("ae.pt", "autoencoder.pt") else {key: spoilt}, file)
    return None


UNUSED = ("std_x", "std_y", "weight", "mean_x", "mean_y", "latents_activation_frequency",
          "latents_mean_square", "threshold")  # fmt: skip
"""Tensors that a layout can do without."""
BREAKS: list[Break] = [
    truncate, flip_structure, payload, nested_payload, huge_header, huge_tensor, bomb, other_names, noise,
    empty, reshaped, reshaped,
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a sound checkpoint of every layout, and one of our own."""
    folders = {}
    for name, write in LAYOUTS.items():
        folder = tmp_path_factory.mktemp("layout")
        write(folder)
        folders[name] = folder
    ours = tmp_path_factory.mktemp("ours")
    save_dictionary(load_dictionary(next(_weights(folders["saeuron"]))), ours / "sae.safetensors")
    return folders | {"ours": ours}


def _weights(folder: Path) -> Iterator[Path]:
    suffixes = (".safetensors", ".pth", ".pt", ".gz")
    beside = ("mean.pt", "std.pt")
    return (f for f in sorted(folder.rglob("*")) if f.suffix in suffixes and f.name not in beside)


def test_five_hundred_bad_files(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rng = random.Random(0)
    canary = tmp_path / "canary"
    names = sorted(checkpoints)
    torch.zeros(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused: dict[str, int] = {}
    for number in range(COUNT):
        folder = tmp_path / str(number)
        shutil.copytree(checkpoints[rng.choice(names)], folder)
        file = next(_weights(folder))
        spoil = BREAKS[number % len(BREAKS)]
        spoil(file, rng, canary)
        start = time.monotonic()
        try:
            load_dictionary(file)
        except RevelioError as problem:
            assert "\n" not in str(problem)
            assert len(str(problem)) < 1000
            refused[spoil.__name__] = refused.get(spoil.__name__, 0) + 1
        else:
            pytest.fail(f"{spoil.__name__} of {file.relative_to(tmp_path)} was loaded")
        assert time.monotonic() - start < SECONDS
        assert not canary.exists()
        shutil.rmtree(folder)
    assert sum(refused.values()) == COUNT
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < BYTES


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    """The canary is a real one: an ordinary unpickler touches it."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Payload(canary)))
    assert canary.exists()


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    for name, target in (("loop.safetensors", "loop.safetensors"), ("gone.pt", "nothing")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(RevelioError):
            load_dictionary(tmp_path / name)
    (tmp_path / "self").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(RevelioError):
        load_dictionary(tmp_path / "self" / "self")
