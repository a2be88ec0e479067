"""The Flux SAEs of fae: the folded dictionary against their formula in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfy_revelio.dictionary import load_dictionary, save_dictionary
from comfy_revelio.dictionary.orbax import from_parameters, is_orbax, read_orbax
from comfy_revelio.errors import RevelioError

D, N, K = 12, 40, 5


def parameters() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    params = {
        "b_pre": torch.randn(D, generator=g),
        "W_enc": torch.randn(D, N, generator=g),
        "b_mid": torch.zeros(N),
        "W_dec": torch.randn(N, D, generator=g),
        "b_post": torch.randn(D, generator=g),
    }
    mean = torch.randn(D, generator=g)
    rotation = torch.linalg.qr(torch.randn(D, D, generator=g)).Q
    info = {
        "feature_means": mean,
        "feature_square_means": mean.square() + torch.rand(D, generator=g) + 0.1,
        # kept in bfloat16, so only nearly orthogonal
        "whitening_matrix": rotation.bfloat16().float(),
    }
    return params, info


def formula(x: Tensor, params: dict[str, Tensor], info: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    p = {name: tensor.double() for name, tensor in (params | info).items()}
    std = (p["feature_square_means"] - p["feature_means"] ** 2).clamp(min=1e-6).sqrt()
    normal = ((x @ p["whitening_matrix"] - p["feature_means"]) / std).clamp(-10, 10)
    e = (normal - p["b_post"] + p["b_pre"]) @ p["W_enc"]
    values, indices = e.topk(K, dim=-1)
    z = torch.zeros_like(e).scatter(-1, indices, values)
    y = z @ p["W_dec"] + p["b_post"]
    return z, (y * std + p["feature_means"]) @ p["whitening_matrix"].T


@pytest.mark.parametrize("size", [1.0, 200.0])  # the second reaches the clip
def test_it_computes_what_fae_computes(tmp_path: Path, size: float) -> None:
    params, info = parameters()
    dictionary = from_parameters(params, info, K)
    x = torch.randn(6, D, generator=torch.Generator().manual_seed(1)) * size
    z, y = formula(x.double(), params, info)
    codes = dictionary.encode(x)
    assert (codes.dense().double() - z).abs().max() < 1e-5 * z.abs().max()
    assert (dictionary.decode(codes).double() - y).abs().max() < 1e-5 * y.abs().max()
    save_dictionary(dictionary, tmp_path / "fae.safetensors", dtype=torch.float32)
    assert torch.equal(load_dictionary(tmp_path / "fae.safetensors")(x), dictionary(x))


def test_a_checkpoint_folder_is_known_by_its_marks(tmp_path: Path) -> None:
    assert not is_orbax(tmp_path)
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "_METADATA").write_text("{}")
    assert is_orbax(tmp_path)
    with pytest.raises(RevelioError, match="Orbax"):
        read_orbax(tmp_path)


def test_a_checkpoint_that_orbax_wrote_is_read(tmp_path: Path) -> None:
    orbax = pytest.importorskip("orbax.checkpoint")
    params, info = parameters()
    as_numpy = {
        "sae_params": {name: tensor.numpy() for name, tensor in params.items()},
        "info": {name: tensor.numpy() for name, tensor in info.items()},
        "ema": {name: tensor.numpy() * 2 for name, tensor in params.items()},
    }
    folder = tmp_path / f"sae_double_l18_img-k{K}" / "30000"
    orbax.PyTreeCheckpointer().save(folder / "default", as_numpy)
    dictionary, told = read_orbax(folder), from_parameters(params, info, K)
    assert (dictionary.k, dictionary.hook_point) == (K, "transformer_blocks.18")
    for one, other in zip(dictionary.buffers(), told.buffers(), strict=True):
        assert torch.equal(one, other)


def test_other_parameters_are_refused() -> None:
    params, info = parameters()
    del params["b_post"]
    with pytest.raises(RevelioError, match="has no b_post"):
        from_parameters(params, info, K)
