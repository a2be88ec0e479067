"""A row of strengths through the real server's own list execution."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from devtools.client import Client, Prompt

from .graphs import branch, loaders, node, run, steer_features

STRENGTHS = (-3.0, 0.0, 2.0)


def one(strength: Any) -> Prompt:
    return (
        loaders() | {"steer": steer_features(strength=strength)} | branch("it", model=["steer", 0], steps=3)
    )


def pixels(files: list[bytes]) -> list[bytes]:
    return [Image.open(io.BytesIO(data)).convert("RGB").tobytes() for data in files]


def test_each_picture_of_a_sweep_is_the_one_of_its_strength(client: Client) -> None:
    sweep = node("RevelioStrengthSweep", first=0.0, last=0.0, count=1, values="-3, 0, 2")
    grid = node("RevelioImageGrid", images=["it decode", 0], columns=0, title="a row", labels=["sweep", 1])
    graph = one(["sweep", 0]) | {"sweep": sweep, "grid": grid}
    result = run(client, graph)
    swept = pixels(result.images_of("it image"))
    alone = [pixels(run(client, one(strength)).images_of("it image")) for strength in STRENGTHS]
    assert len(swept) == 6  # a batch of two for each strength
    assert [swept[number : number + 2] for number in (0, 2, 4)] == alone
    assert len({picture for pair in alone for picture in pair}) == 6
    (figure,) = [Image.open(io.BytesIO(data)) for data in result.images_of("grid")]
    assert figure.width > 5 * 160  # six pictures in one row


def test_a_grid_of_a_batch_needs_no_labels(client: Client) -> None:
    grid = node("RevelioImageGrid", images=["it decode", 0], columns=1, title="")
    result = run(client, one(0.0) | {"grid": grid})
    (figure,) = [Image.open(io.BytesIO(data)) for data in result.images_of("grid")]
    assert figure.height > figure.width
