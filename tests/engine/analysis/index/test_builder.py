"""Building an index while activations go by, against looking at everything at once."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis.index import IndexBuilder
from comfy_revelio.analysis.index.crops import crop_around

GRID = (3, 5)
ITEMS, TIMES = 30, (900.0, 100.0)


@pytest.fixture
def rows(make_dictionary) -> torch.Tensor:
    """[items, times, tokens, d]; in every third item feature 11 is planted at token 6, late."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(ITEMS, len(TIMES), 15, 12, generator=g)
    x[::3, 1, 6] += 4 * make_dictionary().W_enc[11]
    return x


def _captions() -> dict[int, str]:
    kinds = ("a photo", "a drawing, night")
    return {n: f"{kinds[n % 2]}{', with glasses' * (n % 3 == 0)}" for n in range(ITEMS)}


def _image(item: int) -> torch.Tensor:
    """Each image has a grey of its own."""
    return torch.full((48, 80, 3), item / 100)


def _built(sae, rows: torch.Tensor, order: list[int], **options):
    """Images are seen in pairs that take turns, as a batch of a harvest is."""
    builder = IndexBuilder(sae, _captions(), GRID, **options)
    for start in range(0, len(order), 2):
        pair = order[start : start + 2]
        for number, time in enumerate(TIMES):
            for item in pair:
                builder.see(item, time, rows[item, number])
        for item in pair:
            builder.close(item, _image(item))
    return builder.finish("made up")


def test_examples_are_the_highest_of_all_images(make_dictionary, rows: torch.Tensor) -> None:
    sae = make_dictionary()
    index = _built(sae, rows, list(range(ITEMS)), top=4, crop=8)
    z = sae.encode(rows).dense().clamp(min=0)  # [items, times, tokens, n]
    for feature in range(40):
        here = z[..., feature]
        peaks = here.flatten(1).amax(1)
        order = [item for item in peaks.argsort(descending=True).tolist() if peaks[item] > 0][:4]
        part = index.examples(feature)
        assert index.item[part].tolist() == order
        assert torch.allclose(index.value[part], peaks[order])
        for row, item in zip(range(part.start, part.stop), order, strict=True):
            time, token = divmod(int(here[item].flatten().argmax()), 15)
            assert (float(index.timestep[row]), int(index.token[row])) == (TIMES[time], token)
            assert int(index.crops[row].max()) == round(item / 100 * 255)
        fires = here > 0
        assert float(index.rate[feature]) == pytest.approx(float(fires.float().mean()))
        if fires.any():
            assert float(index.mean_active[feature]) == pytest.approx(float(here[fires].mean()), rel=1e-5)
        assert float(index.peak[feature]) == pytest.approx(float(peaks.max()))
    assert (index.items, index.grid, index.n_features) == (ITEMS, GRID, 40)


def test_the_order_of_the_images_does_not_matter(make_dictionary, rows: torch.Tensor) -> None:
    sae = make_dictionary()
    one = _built(sae, rows, list(range(ITEMS)), top=3, crop=8)
    other = _built(sae, rows, list(range(ITEMS))[::-1], top=3, crop=8)
    assert torch.equal(one.item, other.item) and torch.equal(one.crops, other.crops)
    assert one.labels == other.labels


def test_labels_are_the_words_of_the_captions(make_dictionary, rows: torch.Tensor) -> None:
    index = _built(make_dictionary(), rows, list(range(ITEMS)), crop=0)
    assert index.crops is None
    assert index.labels[11].text == "glasses"
    assert index.labels[11].score > 2 and index.labels[11].by == "captions"
    assert sum("glasses" in label.text for label in index.labels.values()) < 8


def test_words_that_always_come_together_are_one_label(make_dictionary, rows: torch.Tensor) -> None:
    captions = {n: f"a portrait{' of a comic book kind' * (n % 3 == 0)}" for n in range(ITEMS)}
    builder = IndexBuilder(make_dictionary(), captions, GRID, crop=0)
    for item in range(ITEMS):
        for number, time in enumerate(TIMES):
            builder.see(item, time, rows[item, number])
        builder.close(item)
    labels = builder.finish("made up").labels
    assert labels[11].text == "comic"
    assert {label.text for label in labels.values()} == {"comic"}


def test_images_without_captions_are_ignored_by_labels(make_dictionary, rows: torch.Tensor) -> None:
    builder = IndexBuilder(make_dictionary(), {}, GRID, crop=0)
    builder.see(0, 1.0, rows[0, 0])
    builder.close(0)
    assert builder.finish("one").labels == {}


def test_a_crop_shows_the_place() -> None:
    image = torch.zeros(60, 100, 3)
    image[20:40, 40:60, 0] = 1  # token 7 of a grid of 3 by 5
    corner, middle = crop_around(image, torch.tensor([0, 7]), GRID, 12)
    assert not corner[:4, :4].any()
    assert int(middle[6, 6, 0]) == 255 and not middle[..., 1:].any()
    assert not middle[0].any() and not middle[:, 0].any()
    small = crop_around(torch.rand(4, 6, 3), torch.tensor([14]), GRID, 16)
    assert small.shape == (1, 16, 16, 3)


def test_too_much_is_refused_in_a_sentence(make_dictionary) -> None:
    sae = make_dictionary()
    for options, message in (
        ({"top": 0}, "1 to 64 examples"),
        ({"crop": 500}, "0 to 256 pixels"),
        ({"top": 64, "crop": 256}, "GiB"),
    ):
        n = 4000 if "GiB" in message else 40
        with pytest.raises(RevelioError, match=message):
            IndexBuilder(make_dictionary(n=n) if n > 40 else sae, {}, GRID, **options)
    with pytest.raises(RevelioError, match="no images"):
        IndexBuilder(sae, {}, GRID).finish("nothing")
