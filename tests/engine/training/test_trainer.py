"""The trainer finds planted features, folds its scaling exactly, and revives dead features."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.training import TrainConfig, measure, train
from comfy_revelio.training.learning_sae import LearningSAE

QUICK = TrainConfig(
    n_features=64,
    k=3,
    steps=500,
    batch=512,
    learning_rate=1e-2,
    warmup=20,
    dead_after=20_000,
    device="cpu",
)


def _planted(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sums of 3 of 48 unit directions in 24 dimensions, off centre and of unusual scale."""
    g = torch.Generator().manual_seed(99)
    directions = torch.nn.functional.normalize(torch.randn(48, 24, generator=g), dim=1)
    g = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows, 48, generator=g).argsort(1)[:, :3]
    strength = torch.rand(rows, 3, generator=g) + 0.5
    return 40 * (strength[..., None] * directions[chosen]).sum(1) + 300, directions


@pytest.fixture(scope="module")
def trained():
    return train(_planted(20_000)[0], QUICK)


def test_planted_features_are_found(trained) -> None:
    x, directions = _planted(5000, seed=1)
    assert measure(trained, x)["explained_variance"] > 0.9
    closest = (trained.W_dec @ directions.T).amax(0)
    assert float((closest > 0.95).float().mean()) > 0.9


def test_what_comes_back_is_a_sound_dictionary(trained) -> None:
    assert (trained.n_features, trained.d_model, trained.k, trained.activation) == (64, 24, 3, "topk_relu")
    assert torch.allclose(trained.W_dec.norm(dim=1), torch.ones(64), atol=1e-5)
    assert not any(buffer.requires_grad for buffer in trained.buffers())
    assert trained.W_enc.data_ptr() != trained.W_dec.data_ptr()
    assert trained.stats is None


def test_the_same_seed_gives_the_same_dictionary() -> None:
    x = _planted(2000)[0]
    config = dataclasses.replace(QUICK, steps=12)
    one, two = train(x, config), train(x, config)
    other = train(x, dataclasses.replace(config, seed=1))
    assert torch.equal(one.W_enc, two.W_enc) and torch.equal(one.b_out, two.b_out)
    assert not torch.equal(one.W_enc, other.W_enc)


@pytest.mark.parametrize("scale_input", ["one", "each", "none"])
@pytest.mark.parametrize("kind", ["topk_relu", "topk_signed", "relu", "batchtopk", "temporal"])
def test_folding_the_scale_changes_no_reconstruction(kind: str, scale_input: str) -> None:
    if kind == "temporal" and scale_input == "each":
        pytest.skip("refused")
    x, t = _planted(400)[0], torch.linspace(0, 999, 400)
    activation = "topk_relu" if kind == "temporal" else kind
    options = {"activation": activation, "temporal": kind == "temporal", "scale_input": scale_input}
    config = dataclasses.replace(QUICK, **options)
    sae = LearningSAE(x, config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in sae.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
        scaled = (x - sae.mean) * sae.scale
        time = sae._modulation(t)
        h = sae._pre_activations(scaled, time)
        z = sae._codes(h, 3)
        if kind == "batchtopk":  # alone, an activation is held against the threshold instead
            z = h.relu() * (h > sae.threshold)
        expected = sae._decode(z, time) / sae.scale + sae.mean
    if scale_input == "one":
        assert float(scaled.square().mean()) == pytest.approx(1.0, rel=1e-4)
    assert torch.allclose(sae.to_dictionary()(x, timestep=t), expected, rtol=1e-4, atol=1e-2)


def test_the_decoder_gradient_has_no_part_along_its_rows() -> None:
    x = _planted(400)[0]
    sae = LearningSAE(x, QUICK, torch.Generator().manual_seed(0))
    sae(x).backward()
    sae.remove_parallel_gradient()
    along = (sae.W_dec.grad * sae.W_dec).detach().sum(1)
    assert float(along.abs().max()) < 1e-6 < float(sae.W_dec.grad.abs().max())


def test_dead_features_come_back_to_life() -> None:
    x = _planted(20_000)[0]

    def dead_at_the_end(aux_k: int) -> float:
        g = torch.Generator().manual_seed(0)
        config = dataclasses.replace(QUICK, steps=400, dead_after=4000, aux_k=aux_k, aux_coef=0.1)
        sae = LearningSAE(x, config, g)
        with torch.no_grad():
            sae.b_enc[:32] = -2.5  # half of the features are never among the strongest 3
        optimizer = torch.optim.Adam(sae.parameters(), lr=5e-3)
        for step in range(400):
            picks = torch.randint(len(x), (512,), generator=g)
            loss = sae(x[picks])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sae.normalise_decoder()
            if step % 20 == 19:
                sae.update_metrics(loss)
        return measure(sae.to_dictionary(), x)["dead_share"]

    assert dead_at_the_end(aux_k=0) > 0.3
    assert dead_at_the_end(aux_k=32) < 0.1


def test_rows_may_come_from_a_function_and_in_half_precision() -> None:
    x = _planted(4000)[0]
    seen: list[int] = []

    def rows(step: int, generator: torch.Generator) -> Tensor:
        seen.append(step)
        return (x[torch.randint(len(x), (512,), generator=generator)] / 64).half()

    sae = train(rows, dataclasses.replace(QUICK, steps=30))
    assert seen[-30:] == list(range(30)) and sae.W_enc.dtype == torch.float32


def test_training_works_where_gradients_are_off() -> None:
    with torch.inference_mode():
        sae = train(_planted(1000)[0], dataclasses.replace(QUICK, steps=3))
    assert not sae.W_enc.is_inference()


@pytest.mark.parametrize("amp", [False, True])
def test_options_keep_their_promises(amp: bool) -> None:
    x = _planted(4000)[0]
    sae = train(
        x, dataclasses.replace(QUICK, steps=60, amp=amp, scale_input="none", unit_decoder=False, aux_k=0)
    )
    assert measure(sae, x)["explained_variance"] > 0.3


def test_progress_is_told_and_may_stop_the_training() -> None:
    calls: list[tuple[int, int]] = []

    class Stop(Exception):
        pass

    def progress(step: int, steps: int, metrics: dict[str, float]) -> None:
        assert set(metrics) == {"loss", "dead_share"}
        calls.append((step, steps))
        if len(calls) == 3:
            raise Stop

    with pytest.raises(Stop):
        train(_planted(1000)[0], dataclasses.replace(QUICK, report_every=5), progress)
    assert calls == [(5, 500), (10, 500), (15, 500)]


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (torch.zeros(0, 24), "at least one row"),
        (torch.zeros(4, 4, 24), "rows, width"),
        (torch.full((50, 24), 3.0), "constant"),
        (torch.full((50, 24), float("nan")), "not finite"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_named(rows: Tensor, word: str) -> None:
    with pytest.raises(RevelioError, match=word):
        train(rows, dataclasses.replace(QUICK, steps=2))


@pytest.mark.parametrize(
    "change",
    [
        {"k": 0}, {"k": 65}, {"steps": 0}, {"batch": 0}, {"learning_rate": float("nan")},
        {"activation": "swish"}, {"temporal": True, "scale_input": "each"},
    ],
)  # fmt: skip
def test_impossible_configurations_are_refused(change) -> None:
    with pytest.raises(RevelioError):
        train(_planted(100)[0], dataclasses.replace(QUICK, **change))
