"""Steering equals the formulas that the papers' code has, written here once more in float64 with NumPy.

Each transcription encodes, masks and adds with loops or plain matrix products, and
shares nothing with the package but the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from comfy_revelio.dictionary import Dictionary
from comfy_revelio.dictionary.orbax import from_parameters
from comfy_revelio.steering import (
    Intervention,
    Selection,
    TokenContext,
    Transfer,
    apply,
    delta,
    paper_delta,
    unlearn,
    unlearning_features,
)
from comfy_revelio.trace import RunRecorder, Trace

Array = NDArray[np.float64]
GRID = (4, 6)
T, D = GRID[0] * GRID[1], 12
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))


def np64(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def encode(sae: Dictionary, x: Array, *, k: int | None) -> Array:
    """relu(topk((x - b_in) W_enc^T + b_enc)), dense; k None leaves the top-k out."""
    h = (x - np64(sae.b_in)) @ np64(sae.W_enc).T + np64(sae.b_enc)
    if k is not None:
        kept = np.zeros_like(h)
        order = np.argsort(-h, axis=-1)[..., :k]
        np.put_along_axis(kept, order, np.take_along_axis(h, order, -1), -1)
        h = kept
    return np.maximum(h, 0)


def assert_close(result: Tensor, expected: Array) -> None:
    np.testing.assert_allclose(np64(result), expected, **CLOSE)
    assert np.abs(expected).max() > 0.1


class TestConceptSteerers:
    """arXiv 2501.19066, unsafe_gen_sd14.py: add = (lambda z_C) W_d^T, no top-k, added to every position."""

    def test_text_encoder(self, make_dictionary: Any) -> None:
        sae, concept, prompt = make_dictionary(), rows(1, 77), rows(2, 1, 77)
        strength = -0.5
        z = encode(sae, np64(concept), k=None)
        add = (strength * z) @ np64(sae.W_dec)
        change = paper_delta(sae, concept, strength)
        assert_close(prompt + change, np64(prompt) + add[None])  # positive prompt
        assert_close(prompt - change, np64(prompt) - add[None])  # negative prompt


class TestSdxlUnbox:
    """arXiv 2410.22366, hooks.py: features painted on output - input; a batch of (uncond, cond)."""

    S, FEATURE = 10.0, 7

    @pytest.fixture
    def sae(self, make_dictionary: Any) -> Dictionary:
        return make_dictionary(captured="diff")

    @pytest.fixture
    def mask(self) -> Tensor:
        """Painted in pixels, 32 to a cell, with an edge inside cells."""
        mask = torch.zeros(1, 32 * GRID[0], 32 * GRID[1])
        mask[:, 40:100, 16:150] = 1.0
        return mask

    def run(self, sae: Dictionary, inp: Tensor, out: Tensor, **options: Any) -> list[Tensor]:
        """Both halves, each as the host steers it: the change of output - input is added to the output."""
        intervention = Intervention(sae, Selection((self.FEATURE,)), **options)
        results = []
        for row, role in enumerate(("uncond", "cond")):
            change = delta(out[row : row + 1] - inp[row : row + 1], intervention, TokenContext(role, GRID))
            results.append(out[row] if change is None else (out[row] + change[0]))
        return results

    def painted(self, sae: Dictionary, mask: Tensor) -> Array:
        """(M s mean[f]) W_dec[f] with M the mean of each 32 x 32 square: [T, d]."""
        cells = np64(mask)[0].reshape(GRID[0], 32, GRID[1], 32).mean(axis=(1, 3)).reshape(T)
        mean = float(sae.stats.mean_active[self.FEATURE])
        return np.outer(cells * self.S * mean, np64(sae.W_dec)[self.FEATURE])

    def test_add_to_the_whole_batch(self, sae: Dictionary, mask: Tensor) -> None:
        inp, out = rows(1, 2, T), rows(2, 2, T)
        results = self.run(sae, inp, out, strength=self.S, mode="add", mask=mask, role="both")
        for row in (0, 1):
            assert_close(results[row], np64(out)[row] + self.painted(sae, mask))

    def test_base_both(self, sae: Dictionary, mask: Tensor) -> None:
        """out[0] -= change; out[1] += change."""
        inp, out = rows(1, 2, T), rows(2, 2, T)
        results = self.run(sae, inp, out, strength=self.S, mode="add", mask=mask, role="mirrored")
        assert_close(results[0], np64(out)[0] - self.painted(sae, mask))
        assert_close(results[1], np64(out)[1] + self.painted(sae, mask))

    def test_base_cond(self, sae: Dictionary, mask: Tensor) -> None:
        inp, out = rows(1, 2, T), rows(2, 2, T)
        results = self.run(sae, inp, out, strength=self.S, mode="add", mask=mask, role="cond")
        assert_close(results[0], np64(out)[0])
        assert_close(results[1], np64(out)[1] + self.painted(sae, mask))

    def test_the_notebooks_units(self, sae: Dictionary) -> None:
        """example.ipynb: activation_map = z[..., f] * s."""
        inp, out = rows(1, 2, T), rows(2, 2, T)
        feature = int(sae.encode(out[1] - inp[1]).indices[0, 0])
        z = encode(sae, np64(out)[1] - np64(inp)[1], k=sae.k)[:, feature]
        intervention = Intervention(sae, Selection((feature,)), 5.0, mode="scale")
        change = delta((out - inp)[1:], intervention, TokenContext("cond", GRID))
        assert change is not None
        assert_close(out[1] + change[0], np64(out)[1] + np.outer(5.0 * z, np64(sae.W_dec)[feature]))

    def test_replace_is_the_feature_icon(self, sae: Dictionary) -> None:
        """out = in + value W_dec[f] for cond, out = in for uncond; value = mean[f] k."""
        inp, out = rows(1, 2, T), rows(2, 2, T)
        value = float(sae.stats.mean_active[self.FEATURE]) * sae.k
        results = self.run(sae, inp, out, strength=float(sae.k), mode="replace", role="mirrored")
        assert_close(results[0], np64(inp)[0])
        assert_close(results[1], np64(inp)[1] + value * np64(sae.W_dec)[self.FEATURE])

    def test_ablate_block(self, sae: Dictionary) -> None:
        inp, out = rows(1, 2, T), rows(2, 2, T)
        results = self.run(sae, inp, out, strength=1.0, mode="ablate_block", role="both")
        for row in (0, 1):
            assert_close(results[row], np64(inp)[row])


class TestFlux:
    """arXiv 2505.24360, steering.ipynb: img[b:-b, b:-b] += s mean|img| normalize((W_dec std) WM^T)[f]."""

    def test_a_rectangle_of_image_tokens(self) -> None:
        g = torch.Generator().manual_seed(5)
        n, border, s, feature = 40, 1, 0.8, 11
        params = {
            "b_pre": torch.randn(D, generator=g),
            "W_enc": torch.randn(D, n, generator=g),
            "W_dec": torch.randn(n, D, generator=g),
            "b_post": torch.randn(D, generator=g),
        }
        mean = torch.randn(D, generator=g)
        info = {
            "feature_means": mean,
            "feature_square_means": mean.square() + torch.rand(D, generator=g) + 0.1,
            "whitening_matrix": torch.linalg.qr(torch.randn(D, D, generator=g)).Q,
        }
        std = np.sqrt(np.maximum(np64(info["feature_square_means"]) - np64(mean) ** 2, 1e-6))
        directions = (np64(params["W_dec"]) * std) @ np64(info["whitening_matrix"]).T
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        img = 3 * rows(6, 1, T)
        expected = np64(img).reshape(1, *GRID, D).copy()
        length = np.linalg.norm(np64(img), axis=-1).mean()
        expected[:, border:-border, border:-border] += s * length * directions[feature]

        mask = torch.zeros(*GRID)
        mask[border:-border, border:-border] = 1.0
        steering = Intervention(
            from_parameters(params, info, 5), Selection((feature,)), s, mode="add", unit="norm", mask=mask
        )
        assert_close(apply(img, steering, TokenContext("cond", GRID)), expected.reshape(1, T, D))


class TestSaeuron:
    """arXiv 2501.18052, hooks.py: z_i <- z_i gamma mu_i where i in S and z_i > mean over all concepts.

    The authors add error = recon - x where x - recon is meant; here the right sign, so no edit is identity.
    """

    def test_unlearning_at_one_timestep(self, make_dictionary: Any) -> None:
        sae, x = make_dictionary(k=20), rows(1, 2, T)
        g = torch.Generator().manual_seed(2)
        concept, others = (torch.rand(sae.n_features, generator=g) for _ in range(2))
        everything, gamma, percentile = (concept + others) / 2, -3.0, 80.0

        share = [np64(mean) / (np64(mean).sum() + 1e-8) for mean in (concept, others)]
        scores = share[0] - share[1]
        chosen = np.flatnonzero(scores > np.quantile(scores, percentile / 100))
        assert 1 < len(chosen) < 12
        z = encode(sae, np64(x), k=sae.k)
        edited = z.copy()
        above = z[..., chosen] > np64(everything)[chosen]
        assert above.any() and (z[..., chosen][~above] > 0).any()
        for i in chosen:
            fires = z[..., i] > np64(everything)[i]
            edited[..., i] = np.where(fires, z[..., i] * gamma * np64(concept)[i], z[..., i])
        recon, edited_recon = (c @ np64(sae.W_dec) + np64(sae.b_out) for c in (z, edited))
        error = np64(x) - recon

        features = unlearning_features(concept, others, percentile)
        assert features.tolist() == chosen.tolist()
        change = unlearn(x, sae, features, concept, everything, gamma)
        assert_close(x + change, edited_recon + error)

    def test_nothing_above_the_threshold_is_identity(self, make_dictionary: Any) -> None:
        sae, x = make_dictionary(k=20), rows(1, 2, T)
        means = torch.ones(sae.n_features)
        change = unlearn(x, sae, torch.tensor([3, 4]), means, 1e6 * means, -1.0)
        assert torch.equal(x + change, x)


class TestRiebench:
    """wendlerc/RIEBench, interventions.py: sae and sae_adaptive, with and without spatial information."""

    TIMES, COUNT, M1 = (999.0, 666.0, 333.0, 0.0), 6, 1.7

    def record(self, sae: Dictionary, activations: Tensor) -> Trace:
        """Activations [steps, T, d] of one image as a trace."""
        recorder = RunRecorder(len(self.TIMES), (1.0,))
        for step, time in enumerate(self.TIMES):
            codes = sae.encode(activations[step][None])
            recorder.add("place", step, 0, 1.0, time, "cond", GRID, codes)
        return recorder.finish({"place": sae})

    @pytest.fixture
    def scene(self, make_dictionary: Any) -> dict[str, Any]:
        """Decoder rows of unlike lengths, so that the adaptive ratio counts; masks of unlike sizes."""
        sae = make_dictionary(n=64, k=12, captured="diff")
        sae.W_dec *= torch.linspace(0.5, 2.0, 64)[:, None]
        masks = torch.zeros(2, *GRID)
        masks[0, 1:3, 1:5] = 1.0
        masks[1, 0:3, 2:5] = 1.0
        return {"sae": sae, "source": 2 * rows(1, 4, T), "target": 2 * rows(2, 4, T), "masks": masks}

    @pytest.mark.parametrize("scores", ["first", "mean"])
    @pytest.mark.parametrize("method", ["plain", "adaptive"])
    @pytest.mark.parametrize("spread", ["place", "mean", "quantile"])
    def test_transfer(self, scene: dict[str, Any], method: str, spread: str, scores: str) -> None:
        sae, masks, m1 = scene["sae"], scene["masks"], self.M1
        mask1, mask2 = (np64(mask).reshape(T) > 0.5 for mask in masks)
        W = np64(sae.W_dec)
        feats = [encode(sae, np64(scene[side]), k=sae.k) for side in ("source", "target")]
        inside = [feats[0][:, mask1], feats[1][:, mask2]]  # [steps, cells, n]
        means = [(f[0] if scores == "first" else f.mean(axis=0)).mean(axis=0) for f in inside]
        order = np.argsort(means[0] / means[0].sum() - means[1] / means[1].sum())
        plus, minus = order[::-1][: self.COUNT], order[: self.COUNT]
        ratio = np.linalg.norm(W[plus], axis=1).sum() / np.linalg.norm(W[minus], axis=1).sum()

        transfer = Transfer(
            sae, "place", self.record(sae, scene["source"]), masks[0], self.record(sae, scene["target"]),
            masks[1], m1, self.COUNT, method, spread, scores,
        )  # fmt: skip
        assert transfer.added == tuple(plus) and transfer.removed == tuple(minus)
        for step, time in enumerate(self.TIMES):
            live = 2 * rows(10 + step, 2, T)
            fmap = np.zeros((T, 64))
            summary = {
                "mean": lambda f: f.mean(axis=0),
                "quantile": lambda f: np.quantile(f, 0.95, axis=0),
            }.get(spread)
            if summary is None:
                fmap[np.ix_(mask1, plus)] = m1 * inside[0][step][:, plus]
            else:
                fmap[np.ix_(mask2, plus)] = m1 * summary(inside[0][step])[plus]
            update = np.repeat(fmap[None], 2, axis=0)
            for item in range(2):
                if method == "plain" and summary is None:
                    update[item][np.ix_(mask2, minus)] -= m1 * inside[1][step][:, minus]
                elif method == "plain":
                    update[item][np.ix_(mask2, minus)] -= m1 * summary(inside[1][step])[minus]
                else:
                    coefs = encode(sae, np64(live)[item], k=sae.k)[mask2][:, minus]
                    coefs = coefs if summary is None else np.broadcast_to(coefs.mean(axis=0), coefs.shape)
                    update[item][np.ix_(mask2, minus)] -= ratio * m1 * coefs
            expected = np64(live) + update @ W
            change = transfer.delta(live, TokenContext("cond", GRID, timestep=time))
            assert change is not None
            assert_close(live + change, expected)
