"""Dictionaries that follow the timestep, against a float64 transcription."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfy_revelio.dictionary import (
    Activation,
    Dictionary,
    InputTransform,
    describe_file,
    load_dictionary,
    save_dictionary,
)
from comfy_revelio.dictionary.timestep_modulation import EMBEDDING, HIDDEN, NAMES, Modulation, new_weights
from comfy_revelio.errors import RevelioError

D, N, K = 12, 40, 5


def temporal(seed: int = 0) -> Dictionary:
    g = torch.Generator().manual_seed(seed)
    shapes = ((HIDDEN, EMBEDDING), (HIDDEN,), (4 * D, HIDDEN), (4 * D,))
    modulation = Modulation(*(torch.randn(shape, generator=g) * 0.2 for shape in shapes))
    sizes = ((N, D), (N,), (N, D), (D,), (D,))
    weights = [torch.randn(size, generator=g) for size in sizes]
    return Dictionary(*weights, Activation("topk_relu", K), inputs=InputTransform(modulation=modulation))


def formula(d: Dictionary, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    assert d.modulation is not None
    W1, b1, W2, b2 = (getattr(d.modulation, name).double() for name in NAMES)
    rates = torch.exp(-math.log(10_000) * torch.arange(EMBEDDING // 2).double() / (EMBEDDING // 2))
    angles = t.double()[:, None] * rates
    hidden = torch.cat([angles.cos(), angles.sin()], dim=1) @ W1.T + b1
    hidden = hidden * torch.sigmoid(hidden)
    scale_in, shift_in, scale_out, shift_out = (hidden @ W2.T + b2).split(D, dim=1)
    inputs = (x - d.b_in.double()) * (1 + scale_in) + shift_in
    h = inputs @ d.W_enc.double().T + d.b_enc.double()
    values, indices = h.topk(K, dim=1)
    z = torch.zeros_like(h).scatter(1, indices, values).relu()
    return z, (z @ d.W_dec.double()) * (1 + scale_out) + shift_out + d.b_out.double()


def test_it_is_the_formula_at_every_timestep(tmp_path: Path) -> None:
    dictionary = temporal()
    x = torch.randn(6, D, generator=torch.Generator().manual_seed(3))
    times = torch.tensor([0.0, 25.0, 250.0, 500.5, 900.0, 999.0])
    z, y = formula(dictionary, x.double(), times)
    codes = dictionary.encode(x, timestep=times)
    assert (codes.dense() - z).abs().max() < 1e-4 * z.abs().max()
    assert (dictionary.decode(codes, timestep=times) - y).abs().max() < 1e-4 * y.abs().max()
    save_dictionary(dictionary, tmp_path / "t.safetensors", dtype=torch.float32)
    assert describe_file(tmp_path / "t.safetensors")["kind"] == "temporal_sae"
    again = load_dictionary(tmp_path / "t.safetensors")
    assert torch.equal(again(x, timestep=times), dictionary(x, timestep=times))


def test_one_timestep_for_all_tokens_of_a_batch() -> None:
    dictionary = temporal()
    x = torch.randn(2, 3, D, generator=torch.Generator().manual_seed(3))
    together = dictionary.encode(x, timestep=torch.tensor([[10.0], [600.0]]))
    for row, t in enumerate((10.0, 600.0)):
        alone = dictionary.encode(x[row], timestep=t).dense()
        assert torch.allclose(together[row].dense(), alone, atol=1e-4)
    change = torch.ones(2, 3, 1)
    added = dictionary.contribution(change, [4], x, timestep=600.0)
    flat = dictionary.directions([4])[0]
    assert not torch.allclose(added[0, 0], flat)
    codes = dictionary.encode(x, timestep=600.0)
    more = type(codes)(
        torch.cat([codes.indices, torch.full((2, 3, 1), 4)], dim=-1),
        torch.cat([codes.values, change], dim=-1),
        codes.n_features,
    )
    difference = dictionary.decode(more, timestep=600.0) - dictionary.decode(codes, timestep=600.0)
    assert torch.allclose(added, difference, atol=1e-4)


def test_a_new_modulation_does_nothing() -> None:
    dictionary = temporal()
    plain = Dictionary(
        *(getattr(dictionary, name) for name in ("W_enc", "b_enc", "W_dec", "b_in", "b_out")),
        Activation("topk_relu", K),
    )
    dictionary.modulation = Modulation(*new_weights(D))
    x = torch.randn(5, D)
    assert torch.equal(dictionary(x, timestep=300.0), plain(x))


def test_without_a_timestep_it_says_so() -> None:
    with pytest.raises(RevelioError, match="depends on the timestep"):
        temporal().encode(torch.randn(2, D))
