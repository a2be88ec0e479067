"""Make feature indexes from harvested activations or a running model, and label the features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError
from ..training.harvest import CaptureSpec, Host, Item, SamplingSettings
from ..training.open_images import items_of_images, read_image
from ..training.prompt_file import read_prompts
from ..training.shards import ShardSet
from .index import FeatureIndex, IndexBuilder, Label
from .index.endpoint import Endpoint, ask
from .prompt_labels import phrases

Progress = Callable[[int, int], None]
"""Called as progress(done, total); an exception that it raises ends the work."""
Images = Callable[[Sequence[Item]], Sequence[Tensor]]
"""Function that returns the images [H, W, 3] of items; the host must have just run these items."""

_ROWS_AT_ONCE = 16_384


def index_of_shards(
    dictionary: Dictionary,
    data: Path,
    images: Path | None = None,
    *,
    top: int = 8,
    crop: int = 48,
    progress: Progress | None = None,
) -> FeatureIndex:
    """Build the index from a folder of harvested activations, with crops if the folder of images is given.

    Labels come from the prompts that the harvest recorded. Only a few thousand rows, and the results so far
    for unfinished images, are in memory at a time.
    """
    shards = ShardSet(data)
    _check_width(dictionary, shards.d_model, str(data))
    source = shards.source
    files = {item.number: item for item in items_of_images(images)} if images is not None else {}
    settings = _settings_of_size(source.extra.get("size", "")) if images is not None else None
    left = shards.rows_of_items()
    if missing := [number for number in left if images is not None and number not in files]:
        raise RevelioError(
            f"{images} has no image number {missing[0]}, but {data} has its activations; give the folder of "
            "images that was harvested."
        )
    builder = IndexBuilder(
        dictionary, read_prompts(data.parent), source.grid, top=top, crop=crop if images is not None else 0
    )
    total = len(left)
    for item, timestep, rows in _maps(shards):
        builder.see(item, timestep, rows)
        left[item] -= len(rows)
        if left[item] == 0:
            del left[item]
            image = None if settings is None else read_image(files[item], settings)
            builder.close(item, image)
            if progress is not None:
                progress(total - len(left), total)
    return builder.finish(f"{total} items of {source.model}")


def index_of_host(
    dictionary: Dictionary,
    host: Host,
    items: Sequence[Item],
    images: Images,
    *,
    top: int = 8,
    crop: int = 48,
    batch: int = 8,
    timesteps: tuple[float, ...] = (25.0, 200.0),
    progress: Progress | None = None,
) -> FeatureIndex:
    """Build the index from a running model, which generates or reads the items' images, a few at a time."""
    if not items:
        raise RevelioError("There is nothing to index; give prompts or images.")
    hook_point = host.hook_point(dictionary.hook_point)
    spec = CaptureSpec((hook_point,), dictionary.captured, timesteps=timesteps)
    captions = {item.number: item.prompt for item in items if item.prompt}
    builder: IndexBuilder | None = None
    for start in range(0, len(items), batch):
        if progress is not None:
            progress(start, len(items))
        part = items[start : start + batch]
        for captured in host.run(part, spec):
            _check_width(dictionary, captured.rows.shape[1], hook_point)
            builder = builder or IndexBuilder(dictionary, captions, captured.grid, top=top, crop=crop)
            builder.see(captured.item, captured.timestep, captured.rows)
        generated = images(part) if crop else [None] * len(part)
        for item, image in zip(part, generated, strict=True):
            assert builder is not None
            builder.close(item.number, image)
    if progress is not None:
        progress(len(items), len(items))
    assert builder is not None
    return builder.finish(f"{len(items)} images of {host.name}")


def label_by_endpoint(
    index: FeatureIndex, endpoint: Endpoint, most: int, progress: Progress | None = None
) -> FeatureIndex:
    """Let a model that sees the crops label the `most` features with the highest peaks; return the new index.

    Other features keep their labels. Only the crops and an instruction are sent.
    """
    if index.crops is None or not len(index.crops):
        raise RevelioError("This index has no crops to send; build it with images.")
    with_examples = index.starts[1:] > index.starts[:-1]
    ranked = torch.where(with_examples, index.peak, -torch.inf).argsort(descending=True, stable=True)
    chosen = [feature for feature in ranked[: max(0, most)].tolist() if with_examples[feature]]
    labels = dict(index.labels)
    for number, feature in enumerate(chosen):
        if progress is not None:
            progress(number, len(chosen))
        if text := ask(endpoint, index.crops[index.examples(feature)]):
            labels[feature] = Label(text, None, "endpoint")
    if progress is not None:
        progress(len(chosen), len(chosen))
    return replace(index, labels=labels)


def words_of(prompts: Sequence[str], most: int = 400) -> list[str]:
    """Return the words and short phrases of prompts, most common first, for CLIP to choose from."""
    counts = Counter(word for prompt in prompts for word in sorted(phrases(prompt)))
    return [word for word, _ in counts.most_common(most)]


def _maps(shards: ShardSet) -> Iterator[tuple[int, float, Tensor]]:
    """Yield (item, timestep, rows [T, d]): one map or, without a grid, consecutive rows of one item."""
    grid = shards.source.grid
    cells = 1 if grid is None else grid[0] * grid[1]
    size = max(1, _ROWS_AT_ONCE // cells) * cells
    for start in range(0, shards.n_rows, size):
        batch = shards.rows(torch.arange(start, min(shards.n_rows, start + size)))
        changes = (batch.item[1:] != batch.item[:-1]) | (batch.timestep[1:] != batch.timestep[:-1])
        edges = (changes.nonzero()[:, 0] + 1).tolist()
        if grid is not None:
            edges = sorted({*edges, *range(cells, len(batch.item), cells)})
        for first, last in zip([0, *edges], [*edges, len(batch.item)], strict=True):
            yield int(batch.item[first]), float(batch.timestep[first]), batch.x[first:last]


def _check_width(dictionary: Dictionary, width: int, where: str) -> None:
    if dictionary.d_model != width:
        raise RevelioError(
            f"This dictionary is for activations {dictionary.d_model} wide, but those of {where} are {width} "
            "wide."
        )


def _settings_of_size(size: str) -> SamplingSettings:
    """Parse the image size that a harvest recorded, such as "64x48"; raise if it recorded none ("")."""
    width, x, height = size.partition("x")
    if not x or not width.isdigit() or not height.isdigit():
        raise RevelioError("The harvest did not record the size of its images; harvest them again.")
    return SamplingSettings(int(height), int(width))
