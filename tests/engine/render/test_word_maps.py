"""The figures, masks and table of words, from notes made to measure."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.render.word_maps import WordMaps, word_maps
from comfy_revelio.trace import WordRecorder, WordTrace

IMAGE = torch.rand(48, 96, 3)


@pytest.fixture(scope="module")
def trace() -> WordTrace:
    """Two pictures, three layers, two steps, a grid of 3 x 6: "hat" sits in one corner, "face" in another."""
    recorder = WordRecorder(2)
    for step in range(2):
        for layer in ("input_blocks.1.1", "middle_block.1", "output_blocks.4.1"):
            shares = torch.full((2, 3, 18), 0.01)
            shares[0, 1, 0], shares[0, 2, 17], shares[1, 1, 17] = 0.5, 0.25, 0.5
            recorder.add(layer, step, 0, 2.0 - step, "cond", (3, 6), shares)
    return recorder.finish({"cond": ("a", "hat", "face")})


def made(trace: WordTrace, show: str = "", **settings: Any) -> WordMaps:
    return word_maps(trace, show, **{"size": (48, 96), **settings})


def test_the_whole_run(trace: WordTrace) -> None:
    found = made(trace, image=IMAGE, edges=False)
    assert found.masks.shape == (2, 48, 96)
    assert found.masks[0, 4, 4] > 0.9 and found.masks[0, 40:, 80:].max() < 0.1
    assert found.masks[1, 44, 92] > 0.9 and found.masks.min() >= 0 and found.masks.max() <= 1
    assert "hat" in found.table and "50.0%" in found.table and "25.0%" in found.table
    assert found.figure.ndim == 3 and found.figure.shape[2] == 3
    more = made(trace, "hat", image=IMAGE)
    assert more.figure.shape[1] < found.figure.shape[1] and len(more.masks) == 1


def test_masks_keep_to_the_edges_of_the_picture(trace: WordTrace) -> None:
    """The picture of a bright corner that is larger than a cell."""
    picture = torch.zeros(48, 96, 3)
    picture[:22, :20] = 1.0
    corner = picture[..., 0].bool()
    plain = made(trace, "hat", image=picture, edges=False, threshold=0.5).masks[0].bool()
    edged = made(trace, "hat", image=picture, threshold=0.5).masks[0].bool()
    assert torch.equal(edged, corner) and not torch.equal(plain, corner)
    alone = made(trace, "hat", threshold=0.5).masks[0].bool()
    assert torch.equal(alone, plain), "without a picture there are no edges"


@pytest.mark.parametrize("view", ["whole run", "by step"])
def test_more_words_than_a_figure_takes(trace: WordTrace, view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(trace, view=view)
    monkeypatch.setattr("comfy_revelio.render.word_maps.MOST", 1)
    first = made(trace, view=view)
    assert torch.equal(first.masks, whole.masks) and first.table == whole.table
    assert first.figure.numel() < whole.figure.numel()


def test_the_other_picture(trace: WordTrace) -> None:
    assert made(trace, "hat", item=1).masks[0, 44, 92] > 0.9
    with pytest.raises(RevelioError, match="no image 2"):
        made(trace, item=2)


def test_hard_masks(trace: WordTrace) -> None:
    masks = made(trace, threshold=0.5).masks
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert 0 < masks[0].mean() < 0.1


def test_phrases(trace: WordTrace) -> None:
    mask = made(trace, "hat face").masks[0]
    assert mask[4, 4] > 0.9 and 0.3 < mask[44, 92] < 0.7


def test_by_step_and_by_layer(trace: WordTrace) -> None:
    """A row for each word, a column for each step (2) or layer (3), as many as asked for."""
    step, layer = made(trace, view="by step"), made(trace, view="by layer")
    assert step.figure.shape[0] == layer.figure.shape[0]
    one = made(trace, "hat", view="by layer")
    assert one.figure.shape[0] < layer.figure.shape[0]
    wide = made(trace, view="by layer", image=IMAGE)
    few = made(trace, view="by layer", image=IMAGE, columns=1)
    assert few.figure.shape[1] < wide.figure.shape[1]


def test_one_step_and_some_layers(trace: WordTrace) -> None:
    found = made(trace, "hat", step=1, layers="output_blocks.4.1, middle_block.1")
    assert torch.allclose(found.masks, made(trace, "hat").masks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"view": "all"}, "Unknown view 'all'; choose one of whole run"),
        ({"columns": 0}, "asked for 0 columns"),
        ({"opacity": 2.0}, "opacity is 2.0"),
        ({"role": "uncond"}, "words of 'uncond' are not known"),
        ({"layers": "nowhere"}, "no layer 'nowhere'; this run has input_blocks.1.1"),
        ({"show": "glasses"}, "'glasses' is not in the prompt; choose from its words: hat, face"),
    ],
)
def test_what_it_cannot_show(trace: WordTrace, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RevelioError, match=message):
        made(trace, **settings)
