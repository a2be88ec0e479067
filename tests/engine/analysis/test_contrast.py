"""Contrast of generations with and without a concept, against plain loops over them."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis import FeaturePeaks, contrast
from comfy_revelio.dictionary import Codes
from comfy_revelio.trace import RunRecorder, Trace


def _codes(sae, items: int, seed: int, steps: int = 3, push: int | None = None) -> Codes:
    """[items, steps, 15 tokens, k], with feature `push` planted at token 7 of step 1."""
    x = torch.randn(items, steps, 15, 12, generator=torch.Generator().manual_seed(seed))
    if push is not None:
        x[:, 1, 7] += 4 * sae.W_enc[push]
    return sae.encode(x)


def _mean_of_maxima(codes: Codes) -> torch.Tensor:
    return torch.stack([item.flatten(0, -2).amax(0) for item in codes.dense().double()]).mean(0)


def test_features_are_ranked_by_their_difference(make_dictionary) -> None:
    sae = make_dictionary()
    with_, without = _codes(sae, 20, 1, push=11), _codes(sae, 9, 2)
    m_with, m_without = _mean_of_maxima(with_), _mean_of_maxima(without)
    score = (m_with - m_without) / (m_with + m_without + 1e-6)
    order = (m_with - m_without).argsort(descending=True).tolist()

    found = contrast(with_, without, count=5)
    assert [entry.feature for entry in found] == order[:5] and order[0] == 11
    for entry in found:
        f = entry.feature
        assert entry.mean_with == pytest.approx(float(m_with[f]), abs=1e-5)
        assert entry.mean_without == pytest.approx(float(m_without[f]), abs=1e-5)
        assert entry.difference == pytest.approx(float(m_with[f] - m_without[f]), abs=1e-5)
        assert entry.score == pytest.approx(float(score[f]), abs=1e-5)
    strict = contrast(with_, without, count=40, min_score=0.3)
    assert [e.feature for e in strict] == [f for f in order if score[f] > 0.3]


def test_streams_traces_and_sums_say_the_same(make_dictionary) -> None:
    sae = make_dictionary()
    with_, without = _codes(sae, 12, 1, push=3), _codes(sae, 12, 2)
    expected = contrast(with_, without, count=6)

    def trace(codes: Codes) -> Trace:
        recorder = RunRecorder(3, (3.0, 2.0, 1.0, 0.0))
        for step in range(3):
            recorder.add("m", step, 0, 3.0 - step, 1.0, "cond", (3, 5), codes[:, step])
        return recorder.finish({"m": sae})

    peaks = FeaturePeaks(40)
    for start in range(0, 12, 5):
        peaks.add(with_[start : start + 5])
    by_steps = FeaturePeaks(40)
    by_steps.add(without[:, step] for step in range(3))
    by_trace = FeaturePeaks(40)
    by_trace.add_trace(trace(with_), "m")
    for one, other in [
        ((with_[i : i + 4] for i in (0, 4, 8)), [without[:6], without[6:]]),
        (trace(with_), [trace(without[:5]), trace(without[5:])]),
        (peaks, by_steps),
        (by_trace, without),
    ]:
        found = contrast(one, other, count=6)
        assert [e.feature for e in found] == [e.feature for e in expected]
        assert found[0].difference == pytest.approx(expected[0].difference, abs=1e-5)


def test_mean_maps_are_means_over_items_and_steps(make_dictionary) -> None:
    sae = make_dictionary()
    codes = _codes(sae, 7, 1, push=5)
    peaks = FeaturePeaks(40, grid=(3, 5))
    peaks.add(codes[:4])
    peaks.add(codes[4:, step] for step in range(3))
    expected = codes.dense().double().mean((0, 1)).T.reshape(40, 3, 5)
    assert peaks.items == 7
    assert torch.allclose(peaks.mean_map().double(), expected, atol=1e-5)
    with pytest.raises(RevelioError, match="grid"):
        peaks.add(Codes(codes.indices[:, :, :4], codes.values[:, :, :4], 40))
    with pytest.raises(RevelioError, match="No maps"):
        FeaturePeaks(40).mean_map()


def test_only_features_that_rise_are_found(make_dictionary) -> None:
    codes = _codes(make_dictionary(), 5, 1)
    assert contrast(codes, codes) == []


def test_what_cannot_be_compared_is_named(make_dictionary) -> None:
    sae, codes = make_dictionary(), _codes(make_dictionary(), 3, 1)
    with pytest.raises(RevelioError, match="at least one"):
        contrast([], codes)
    with pytest.raises(RevelioError, match="at least one"):
        contrast(FeaturePeaks(40), codes)
    with pytest.raises(RevelioError, match="different dictionaries"):
        contrast(Codes(codes.indices, codes.values, 41), codes)
    with pytest.raises(RevelioError, match="41 features"):
        contrast([codes, Codes(codes.indices, codes.values, 41)], codes)
    with pytest.raises(RevelioError, match="items, tokens"):
        contrast(codes[0, 0, 0], codes)
    recorder = RunRecorder(1, (1.0, 0.0))
    for name in ("m", "n"):
        recorder.add(name, 0, 0, 1.0, 1.0, "cond", (3, 5), codes[:, 0])
    two = recorder.finish({"m": sae, "n": sae})
    with pytest.raises(RevelioError, match="which hook point"):
        contrast(two, two)
    assert contrast(two, codes[:, 1], hook_point="n", count=1)
