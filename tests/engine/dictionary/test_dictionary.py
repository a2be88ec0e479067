"""The maths of the k-SAE, against a transcription in float64 and plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from comfy_revelio.dictionary import Activation, Codes, Dictionary, FeatureStats, topk
from comfy_revelio.dictionary import dictionary as dictionary_module
from comfy_revelio.dictionary.activations import ACTIVATION_KINDS
from comfy_revelio.dictionary.gradient_pursuit import gradient_pursuit
from comfy_revelio.dictionary.topk import top_k
from comfy_revelio.errors import RevelioError

ACTIVATIONS = ("topk_relu", "topk_signed", "relu")


def _reference(dictionary: Dictionary, x: Tensor) -> tuple[Tensor, Tensor]:
    """Dense codes and reconstruction in float64: relu(topk(h)) or topk(h)."""
    W_enc, b_enc, W_dec, b_in, b_out = (
        getattr(dictionary, name).double() for name in ("W_enc", "b_enc", "W_dec", "b_in", "b_out")
    )
    h = (x.double() - b_in) @ W_enc.T + b_enc
    z = torch.zeros_like(h)
    for row, out in zip(h.reshape(-1, h.shape[-1]), z.view(-1, h.shape[-1]), strict=True):
        for feature in sorted(range(len(row)), key=lambda f: -float(row[f]))[: dictionary.k]:
            if dictionary.activation == "topk_signed" or row[feature] > 0:
                out[feature] = row[feature]
    return z, z @ W_dec + b_out


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(12,), (7, 12), (2, 5, 12), (2, 3, 5, 12)])
def test_encode_and_decode_match_the_formula(
    make_dictionary, activation: str, shape: tuple[int, ...]
) -> None:
    dictionary = make_dictionary(activation=activation)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    codes = dictionary.encode(x)
    z, x_hat = _reference(dictionary, x)
    assert codes.indices.shape == codes.values.shape == (*shape[:-1], 5)
    assert codes.indices.dtype == torch.int64 and codes.values.dtype == torch.float32
    assert torch.allclose(codes.dense().double(), z, atol=1e-5)
    assert torch.allclose(dictionary.decode(codes).double(), x_hat, atol=1e-5)
    assert torch.equal(dictionary(x), dictionary.decode(codes))
    assert bool((codes.values[..., :-1] >= codes.values[..., 1:]).all())


def test_encode_dense_has_no_top_k(make_dictionary) -> None:
    dictionary = make_dictionary()
    x = torch.randn(2, 3, 12)
    h = (x - dictionary.b_in) @ dictionary.W_enc.T + dictionary.b_enc
    assert torch.allclose(dictionary.encode_dense(x), h.clamp(min=0), atol=1e-5)


def test_chunks_do_not_show(make_dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = make_dictionary()
    x = torch.randn(101, 12)
    whole = dictionary.encode(x)
    monkeypatch.setattr(dictionary_module, "_CHUNK_BYTES", 4 * 40 * 7)
    parts = dictionary.encode(x)
    assert torch.equal(parts.indices, whole.indices)
    assert torch.allclose(parts.values, whole.values, atol=1e-5)
    assert torch.allclose(dictionary.decode(parts), dictionary.decode(whole), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_input_type_is_computed_in_float32(make_dictionary, dtype: torch.dtype) -> None:
    dictionary = make_dictionary()
    x = torch.randn(6, 12).to(dtype)
    codes, exact = dictionary.encode(x), dictionary.encode(x.float())
    assert codes.values.dtype == torch.float32
    assert torch.equal(codes.indices, exact.indices) and torch.equal(codes.values, exact.values)


def test_mixed_precision_around_it_does_not_reach_in(make_dictionary) -> None:
    dictionary = make_dictionary()
    x = torch.randn(6, 12)
    exact = dictionary.encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dictionary.encode(x).values, exact.values)


def test_weights_kept_in_half_precision_still_compute_in_float32(make_dictionary) -> None:
    dictionary = make_dictionary()
    half = make_dictionary().half()
    x = torch.randn(6, 12)
    rounded = Dictionary(
        *(getattr(half, name).float() for name in ("W_enc", "b_enc", "W_dec", "b_in", "b_out")),
        Activation("topk_relu", 5),
    )
    codes = half.encode(x)
    assert torch.equal(codes.values, rounded.encode(x).values)
    assert half.decode(codes).dtype == half.directions([1]).dtype == torch.float32
    assert dictionary.W_enc.dtype == torch.float32


def test_an_empty_input_gives_empty_codes(make_dictionary) -> None:
    dictionary = make_dictionary()
    codes = dictionary.encode(torch.zeros(0, 7, 12))
    assert codes.indices.shape == (0, 7, 5)
    assert dictionary.decode(codes).shape == (0, 7, 12)


def test_ties_go_to_the_lower_feature_and_silence_to_feature_zero() -> None:
    h = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.5], [-1.0, -1.0, -2.0, 0.0, -0.0], [2.0, 1.0, 1.0, 1.0, 1.0]])
    indices, values = top_k(h, 2, signed=False)
    assert indices.tolist() == [[1, 2], [0, 0], [0, 1]]
    assert values.tolist() == [[3.0, 3.0], [0.0, 0.0], [2.0, 1.0]]
    indices, values = top_k(torch.tensor([[-1.0, -3.0, -1.0, -1.0]]), 2, signed=True)
    assert indices.tolist() == [[0, 2]] and values.tolist() == [[-1.0, -1.0]]


def test_many_ties_match_a_stable_sort() -> None:
    h = torch.randint(-3, 4, (200, 64), generator=torch.Generator().manual_seed(5)).float()
    for k in (1, 9, 64):
        indices, values = top_k(h, k, signed=True)
        expected = h.sort(dim=1, descending=True, stable=True)
        assert torch.equal(values, expected.values[:, :k])
        assert torch.equal(indices, torch.where(values == 0, 0, expected.indices[:, :k]))


def test_no_feature_occurs_twice_in_a_code(make_dictionary) -> None:
    codes = make_dictionary(k=20).encode(torch.randn(50, 12))
    for indices, values in zip(codes.indices, codes.values, strict=True):
        fired = indices[values > 0].tolist()
        assert len(set(fired)) == len(fired)


def test_all_features_may_be_active(make_dictionary) -> None:
    codes = make_dictionary(k=40).encode(torch.randn(3, 12))
    assert codes.k == 40


def test_not_a_number_goes_through_without_an_error(make_dictionary) -> None:
    x = torch.randn(4, 12)
    x[1, 3] = float("nan")
    codes = make_dictionary().encode(x)
    assert codes.values[[0, 2, 3]].isfinite().all() and not codes.values[1].isfinite().all()
    assert bool(((codes.indices >= 0) & (codes.indices < 40)).all())


def test_directions_are_decoder_rows_in_the_order_asked(make_dictionary) -> None:
    dictionary = make_dictionary()
    assert torch.equal(dictionary.directions([7, 0, 39]), dictionary.W_dec[[7, 0, 39]])
    assert torch.equal(dictionary.directions(torch.tensor([2])), dictionary.W_dec[[2]])
    assert dictionary.directions([]).shape == (0, 12)
    for wrong in ([40], [-1], [0, 41]):
        with pytest.raises(RevelioError, match="0 to 39"):
            dictionary.directions(wrong)


def test_widths_and_codes_that_do_not_fit_are_named(make_dictionary) -> None:
    dictionary = make_dictionary(hook_point="middle_block.1")
    with pytest.raises(RevelioError, match=r"12 wide.*middle_block\.1.*13 wide"):
        dictionary.encode(torch.zeros(3, 13))
    with pytest.raises(RevelioError, match="41 features"):
        dictionary.decode(Codes(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2), 41))


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"k": 41}, {"activation": "gelu"}, {"captured": "input"}, {"pooling": "max"},
                {"labels": {"hat": [40]}}]
)  # fmt: skip
def test_impossible_dictionaries_are_refused(make_dictionary, options) -> None:
    with pytest.raises(RevelioError):
        make_dictionary(**options)


def test_statistics_move_with_the_weights_and_must_fit(make_dictionary) -> None:
    dictionary = make_dictionary()
    assert dictionary.stats.mean_map.shape == (40, 3, 5)
    assert "stats_mean_active" in dictionary.state_dict()
    assert dictionary.double().stats.rate.dtype == torch.float64
    with pytest.raises(RevelioError, match="40 features"):
        dictionary.set_stats(FeatureStats(torch.zeros(39), torch.zeros(39)))
    dictionary.set_stats(None)
    assert dictionary.stats is None


def test_a_feature_is_called_by_the_label_it_ranks_highest_in(make_dictionary) -> None:
    dictionary = make_dictionary(labels={"hat": [3, 4], "red hat": [4]})
    assert [dictionary.label_of(f) for f in (3, 4, 5)] == ["hat", "red hat", ""]


@pytest.mark.parametrize("activation", ACTIVATION_KINDS)
def test_encoding_does_not_wait_for_a_gpu(make_dictionary, activation: str) -> None:
    """Fake tensors have no numbers, so whatever would ask the device for one fails on them."""
    kinds = {
        "jumprelu": {"threshold": torch.zeros(40)},
        "gated": {"gate_bias": torch.zeros(40), "magnitude": torch.ones(40)},
    }
    dictionary = make_dictionary(activation=activation, **kinds.get(activation, {}))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for name, tensor in dictionary.named_buffers():
            setattr(dictionary, name, mode.from_tensor(tensor).to("cuda"))
        codes = dictionary.encode(torch.empty(2, 30, 12, device="cuda"))
        assert codes.values.device.type == "cuda" and codes.shape == (2, 30)


def test_the_way_for_gpus_finds_the_same_as_the_one_for_processors() -> None:
    h = torch.randint(-3, 4, (200, 64), generator=torch.Generator().manual_seed(6)).float()
    for signed in (True, False):
        rows = (h + torch.randn(h.shape) * (torch.arange(200) % 2)[:, None]).contiguous()
        values, indices = topk._exact_top(rows, 9)
        values = values if signed else values.relu()
        ours = top_k(rows, 9, signed=signed)
        assert torch.equal(ours[1], values) and torch.equal(ours[0], torch.where(values == 0, 0, indices))


def _pursuit(signal: Tensor, atoms: Tensor, k: int) -> Tensor:
    """Gradient pursuit as it is written down, in float64."""
    signal, atoms = signal.double(), atoms.double()
    z = signal.new_zeros(len(signal), len(atoms))
    for _ in range(k):
        residual = signal - z @ atoms
        inner = residual @ atoms.T
        selected = z != 0
        selected[torch.arange(len(signal)), inner.argmax(1)] = True
        gradient = selected * inner
        c = gradient @ atoms
        step = (c * residual).sum(1) / (c * c).sum(1).clamp(min=1e-3)
        z = (z + step[:, None] * gradient).relu()
    return z


@pytest.mark.parametrize("rows", [1, 300])
def test_pursuit_of_atoms_that_resemble_each_other_is_exact(rows: int) -> None:
    """In float32 alone the rounding grows until other atoms are chosen: errors of 1e-4 and more."""
    g = torch.Generator().manual_seed(2)
    base = torch.randn(64, 96, generator=g)

    def alike(count: int) -> Tensor:
        return torch.randn(count, 64, generator=g).relu() @ base * 0.3 + 1

    atoms = torch.nn.functional.normalize(alike(650), dim=1)
    x = alike(rows)
    expected = _pursuit(x, atoms, 16)
    found = gradient_pursuit(x, atoms, 16)
    assert found.dtype == torch.float32
    assert int((found > 0).sum(1).max()) <= 16
    assert float((found - expected).abs().max()) < 1e-6 * float(expected.max())


def test_pursuit_of_few_atoms_and_of_nothing() -> None:
    g = torch.Generator().manual_seed(3)
    atoms = torch.nn.functional.normalize(torch.randn(3, 5, generator=g), dim=1)
    x = torch.randn(4, 5, generator=g)
    expected = _pursuit(x, atoms, 3)
    assert float((gradient_pursuit(x, atoms, 3) - expected).abs().max()) < 1e-6
    assert gradient_pursuit(x[:0], atoms, 3).shape == (0, 3)
    assert not gradient_pursuit(torch.zeros(2, 5), atoms, 3).any()
