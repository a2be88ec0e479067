"""The parts of mini's training: tokens, precision, pace, checkpoints, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from comfy_revelio.host.mini import config
from comfy_revelio.host.mini.weights import load_weights
from lab.data.attributes import ATTRIBUTES
from lab.train import tokenizer
from lab.train.checkpoint import load_state, save_state, save_weights
from lab.train.pace import Pace, learning_rate
from lab.train.precision import Masters
from lab.train.unet_and_text_encoder import (
    UNKNOWN_WORD,
    TextAndUNet,
    empty_prompt,
    first_end,
    meaning_loss,
    part_weights,
    spoil_captions,
)
from lab.train.vae import draw, reconstruction_loss


def test_words_outside_the_vocabulary_become_unknown() -> None:
    ids = np.array([[config.BOS_TOKEN, 320, 999, config.EOS_TOKEN]])
    vocabulary = tokenizer.small_vocabulary(np.array([[320]]))
    small = tokenizer.to_small(ids, vocabulary)
    assert small[0, 2] == tokenizer.UNKNOWN
    assert len(set(small[0].tolist())) == 4
    assert (vocabulary[small[0, [0, 1, 3]] - 1] == ids[0, [0, 1, 3]]).all()


def test_begin_and_end_are_the_highest_small_numbers() -> None:
    vocabulary = tokenizer.small_vocabulary(np.array([[320, 5, 40000]]))
    ends = tokenizer.to_small(np.array([config.BOS_TOKEN, config.EOS_TOKEN]), vocabulary)
    assert ends.tolist() == [len(vocabulary) - 1, len(vocabulary)]


def test_spoiling_drops_about_a_tenth_and_never_touches_begin_or_end() -> None:
    torch.manual_seed(0)
    vocabulary = tokenizer.small_vocabulary(np.array([[320, 321, 322]]))
    row = torch.from_numpy(empty_prompt(vocabulary).astype(np.int64))
    caption = row.clone()
    caption[1:4] = torch.tensor([1, 2, 3])
    batch = caption.repeat(4000, 1)
    spoiled = spoil_captions(batch, row, torch.full((4000,), 4))
    dropped = (spoiled == row).all(dim=1)
    assert dropped.float().mean() == pytest.approx(0.1, abs=0.02)
    assert (spoiled[:, 0] == row[0]).all()
    assert (spoiled[:, 4:] == row[4:]).all()
    unknown = ((spoiled == tokenizer.UNKNOWN).sum(dim=1) == 1).float().mean()
    assert unknown == pytest.approx(UNKNOWN_WORD, abs=0.02)
    assert (batch == caption).all()


def test_the_loss_weighs_the_cells_that_an_attribute_decides() -> None:
    torch.manual_seed(0)
    count, columns = 400, list(ATTRIBUTES)
    latents = torch.randn(count, 8, 6, 10).half()  # not square; the second half of the channels is spread
    labels = torch.zeros(count, len(columns), dtype=torch.int64)
    labels[:, columns.index("style")] = torch.arange(count) % 2
    labels[:, columns.index("mood")] = torch.arange(count) // 2 % 3
    labels[:, columns.index("hair")] = -1
    shown = (labels[:, columns.index("mood")] == 1) & (labels[:, columns.index("style")] == 1)
    latents[shown, 0, 4, 7] += 3.0  # only the second style shows its mood, in one cell
    weights = part_weights(latents, labels)
    assert weights.shape == (len(ATTRIBUTES["style"]), 1, 6, 10)
    assert torch.allclose(weights.mean(dim=(1, 2, 3)), torch.ones(len(weights)))
    assert weights[1, 0].argmax() == 4 * 10 + 7
    assert weights[1, 0, 4, 7] > 4 * weights[1, 0].median()
    assert (weights[2] == 1).all()  # a style without pictures


def test_masters_learn_steps_that_bfloat16_cannot_hold() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 1.0)
    masters = Masters(layer)
    optimizer = torch.optim.SGD(masters.weights, lr=1e-4)
    for step in range(1, 101):
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        masters.collect_gradients(limit=10.0)
        optimizer.step()
        masters.publish(step)
    assert masters.weights[0].item() == pytest.approx(0.99, abs=1e-5)
    assert layer.weight.item() == pytest.approx(0.99, abs=0.005)
    assert 0.99 < masters.averaged()["weight"].item() < 1.0


def test_masters_leave_frozen_parameters_alone() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    network[0].requires_grad_(False)
    assert set(Masters(network).averaged()) == {"1.weight", "1.bias"}


def test_learning_rate_rises_holds_and_falls() -> None:
    rates = [learning_rate(1.0, step, 1000, warm_up=100, hold=0.4) for step in (1, 100, 399, 700, 1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[1] == rates[2] == 1.0
    assert rates[3] == pytest.approx(0.5)
    assert 0 < rates[4] < 0.01


def test_pace_sets_the_steps_from_the_measured_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 120.0])
    monkeypatch.setattr("lab.train.pace.time.monotonic", lambda: next(clock))
    pace = Pace(10**6, 5.0, "cpu", start=7)
    assert [step for step in range(8, 100) if pace.tick(step)] == [67]
    assert pace.steps == 600


def test_state_and_weights_come_back(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none.state") is None
    save_state({"step": 3, "weights": [torch.arange(3.0)]}, tmp_path / "a.state")
    state = load_state(tmp_path / "a.state")
    assert state is not None and state["step"] == 3 and torch.equal(state["weights"][0], torch.arange(3.0))
    save_weights(
        {"w": torch.tensor([0.5]), "ids": torch.tensor([7])}, tmp_path / "w.safetensors", metadata={"a": "b"}
    )
    tensors, metadata = load_weights(tmp_path / "w.safetensors")
    assert (
        tensors["w"].dtype == torch.float32 and tensors["ids"].dtype == torch.int64 and metadata == {"a": "b"}
    )


def test_crops_lie_on_the_grid_of_latent_cells() -> None:
    column = torch.arange(128, dtype=torch.uint8)
    images = column.repeat(5, 3, 128, 1)
    for _ in range(20):
        crop = draw(images, 2, crop=64)
        assert crop.shape == (2, 3, 64, 64)
        first = round(float((crop[0, 0, 0, 0] + 1) * 127.5))
        assert first % config.LATENT_SCALE == 0


def test_blurred_pictures_cost_more_than_equal_ones() -> None:
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 16:] = 1.0
    blurred = torch.nn.functional.avg_pool2d(picture, 5, 1, 2)
    assert reconstruction_loss(picture, picture) == 0
    assert reconstruction_loss(blurred, picture) > reconstruction_loss(picture + 0.01, picture)


def test_the_loss_of_reading_counts_what_is_known_and_nothing_else() -> None:
    """Two captions of which one hides all but its style, against plain logarithms."""
    sizes = [len(values) for values in ATTRIBUTES.values()]
    scores = torch.randn(2, sum(sizes), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[size - 1 for size in sizes], [0] + [-1] * (len(sizes) - 1)])
    expected, start = [], 0
    for column, size in enumerate(sizes):
        for row in range(2):
            if labels[row, column] >= 0:
                part = scores[row, start : start + size].double().exp()
                expected.append(-torch.log(part[labels[row, column]] / part.sum()))
        start += size
    assert meaning_loss(scores, labels).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert meaning_loss(scores, torch.full_like(labels, -1)).item() == 0.0


def test_the_reader_sees_the_words_and_not_the_padding() -> None:
    """What the reader says of a caption hangs on its words, and its loss reaches the text encoder."""
    torch.manual_seed(0)
    model, end = TextAndUNet(40), 39
    tokens = torch.full((2, config.CONTEXT_TOKENS), end)
    tokens[:, 0], tokens[0, 1:4], tokens[1, 1:4] = 38, torch.tensor([5, 6, 7]), torch.tensor([5, 6, 8])
    ends = first_end(tokens, end)
    assert ends.tolist() == [4, 4]
    latents, t = torch.zeros(2, 4, 16, 16), torch.zeros(2)
    _, scores = model(latents, t, tokens, ends)
    assert not torch.allclose(scores[0], scores[1], atol=1e-4)
    states = model.text(input_ids=tokens).last_hidden_state
    assert torch.allclose(scores, model.reader(states[:, 1:4].mean(dim=1)), atol=1e-5)
    meaning_loss(scores, torch.zeros(2, len(ATTRIBUTES), dtype=torch.long)).backward()
    assert all(p.grad is None for p in model.unet.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.text.parameters())
