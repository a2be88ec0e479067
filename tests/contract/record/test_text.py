"""A prompt read through a real CLIP: its words, its codes, its table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

LAYER = "layers.3"


@pytest.fixture
def record(pack: Any, mini: SimpleNamespace, sae: Any) -> Any:
    host = pack("comfy_revelio.host.record.text")
    return lambda prompt, **options: host.record_text(mini.clip, sae(LAYER), prompt, **options)


def test_words_and_codes_stand_together(record: Any, mini: SimpleNamespace, sae: Any, pack: Any) -> None:
    trace, table = record("round Glasses")
    assert trace.words[:5] == ("<|startoftext|>", "round", "glasses", "<|endoftext|>", "<|endoftext|>")
    (frame,) = trace.frames
    assert (frame.hook_point, frame.grid, len(trace.words)) == (LAYER, (1, 77), 77)
    text = pack("comfy_revelio.host.text.encoder_taps")
    layer = text.resolve_layer(mini.clip, LAYER, 192, "the SAE")
    hidden, _ = text.text_hidden(mini.clip, ["round glasses"], layer)
    codes = sae(LAYER).dictionary.encode(hidden)
    assert torch.equal(frame.codes.indices, codes.indices)
    assert torch.equal(frame.codes.values, codes.values)
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == ["round", "glasses"]
    assert f"#{int(codes.indices[0, 2, 0])}" in table.splitlines()[3]


def test_labels_and_the_count(record: Any) -> None:
    _, table = record("glasses", count=1)
    assert table.splitlines()[2].count("#") == 1


def test_a_long_prompt_has_a_row_for_each_section(record: Any) -> None:
    words = [f"hat{'' if number % 2 else ','}" for number in range(100)]
    trace, table = record(" ".join(words))
    (frame,) = trace.frames
    assert frame.grid == (2, 77)
    assert len(trace.words) == 154
    assert trace.words[77] == "<|startoftext|>"
    assert sum("hat" in line for line in table.splitlines()) == 100
    assert trace.top_features(LAYER, 3)


def test_weights_do_not_count(record: Any) -> None:
    plain, weighted = (record(prompt)[0] for prompt in ("round glasses", "round (glasses:1.4)"))
    assert plain.words == weighted.words
    assert torch.equal(plain.frames[0].codes.values, weighted.frames[0].codes.values)


def test_an_empty_prompt_is_said(record: Any) -> None:
    trace, table = record("")
    assert table == "This prompt has no words."
    assert len(trace.words) == 77
