"""Metrics and statistics, against float64 over the whole data at once."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Activation, Dictionary
from comfy_revelio.training import feature_stats, measure


def _identity(d: int = 6) -> Dictionary:
    """Explains positive inputs without error."""
    eye = torch.eye(d)
    return Dictionary(eye, torch.zeros(d), eye, torch.zeros(d), torch.zeros(d), Activation("topk_relu", d))


def test_figures_follow_their_definitions(make_dictionary) -> None:
    sae = make_dictionary()
    x = torch.randn(500, 12, generator=torch.Generator().manual_seed(1)) * 2 + 5
    codes = sae.encode(x)
    xd, x_hat, bias = x.double(), sae.decode(codes).double(), sae.b_out.double()
    fvu = float((xd - x_hat).square().sum() / (xd - xd.mean(0)).square().sum())
    cosine = torch.nn.functional.cosine_similarity(xd - bias, x_hat - bias).mean()
    fired = (codes.dense() > 0).any(0)

    metrics = measure(sae, x, chunk_rows=64)
    assert metrics["fvu"] == pytest.approx(fvu, rel=1e-4)
    assert metrics["explained_variance"] == pytest.approx(1 - fvu, rel=1e-4)
    assert metrics["cosine"] == pytest.approx(float(cosine), abs=1e-5)
    assert metrics["l0"] == pytest.approx(float((codes.values > 0).sum() / 500))
    assert metrics["dead_share"] == pytest.approx(1 - float(fired.float().mean()))
    assert metrics["measured_rows"] == 500


def test_streaming_and_shape_do_not_matter(make_dictionary) -> None:
    sae = make_dictionary()
    x = torch.randn(4, 6, 5, 12)
    whole = measure(sae, x.reshape(-1, 12))
    for source in (x, list(x), (part.half().float() for part in [x[:1], x[1:]]), [x[:0], x]):
        assert measure(sae, source, chunk_rows=7) == pytest.approx(whole, rel=1e-3)


def test_the_mean_alone_explains_nothing_and_a_large_mean_does_not_help() -> None:
    x = torch.rand(2000, 6) + 0.5
    perfect = _identity()
    assert measure(perfect, x)["explained_variance"] == pytest.approx(1.0)
    only_mean = Dictionary(
        torch.zeros(6, 6), torch.zeros(6), torch.eye(6), torch.zeros(6), x.mean(0), Activation("topk_relu", 3)
    )
    assert measure(only_mean, x)["explained_variance"] == pytest.approx(0.0, abs=1e-4)
    assert measure(only_mean, x)["dead_share"] == 1.0
    far = Dictionary(
        torch.zeros(6, 6),
        torch.zeros(6),
        torch.eye(6),
        torch.zeros(6),
        x.mean(0) + 1000,
        Activation("topk_relu", 3),
    )
    assert measure(far, x + 1000)["explained_variance"] == pytest.approx(0.0, abs=1e-2)


def test_statistics_of_maps_follow_their_definitions(make_dictionary) -> None:
    sae = make_dictionary()
    maps = torch.randn(20, 3, 5, 12, generator=torch.Generator().manual_seed(2))
    z = sae.encode(maps).dense().double()  # [20, 3, 5, 40]
    fires = (z > 0).double()
    stats = feature_stats(sae, maps.half().float(), chunk_rows=40)
    z = sae.encode(maps.half().float()).dense().double()
    fires = (z > 0).double()
    assert torch.allclose(stats.rate.double(), fires.mean((0, 1, 2)), atol=1e-6)
    assert torch.allclose(
        stats.mean_active.double(), z.sum((0, 1, 2)) / fires.sum((0, 1, 2)).clamp(min=1), atol=1e-5
    )
    mean = z.mean(0).permute(2, 0, 1)
    peak = mean.amax((1, 2), keepdim=True)
    assert torch.allclose(stats.mean_map.double(), torch.where(peak > 0, mean / peak, 0.0), atol=1e-5)
    assert stats.mean_active.dtype == stats.rate.dtype == stats.mean_map.dtype == torch.float32


def test_features_that_never_fire_have_zeros_not_nan() -> None:
    stats = feature_stats(_identity(), torch.cat([torch.ones(4, 2, 2, 3), -torch.ones(4, 2, 2, 3)], dim=-1))
    assert stats.mean_active.tolist() == [1, 1, 1, 0, 0, 0] and stats.rate.tolist() == [1, 1, 1, 0, 0, 0]
    assert stats.mean_map.sum((1, 2)).tolist() == [4, 4, 4, 0, 0, 0]


def test_rows_have_no_maps(make_dictionary) -> None:
    sae = make_dictionary()
    rows = torch.randn(30, 12)
    by_rows = feature_stats(sae, rows)
    by_prompts = feature_stats(sae, rows.reshape(5, 6, 12))
    assert by_rows.mean_map is None and by_prompts.mean_map is None
    assert torch.allclose(by_rows.mean_active, by_prompts.mean_active, atol=1e-6)


def test_sources_that_cannot_be_measured_are_named(make_dictionary) -> None:
    sae = make_dictionary()
    for function in (measure, feature_stats):
        with pytest.raises(RevelioError, match="harvest"):
            function(sae, [])
        with pytest.raises(RevelioError, match="12 wide"):
            function(sae, torch.zeros(3, 13))
    with pytest.raises(RevelioError, match="the same size"):
        feature_stats(sae, [torch.randn(2, 3, 5, 12), torch.randn(2, 5, 3, 12)])
