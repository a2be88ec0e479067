"""`label`: build the feature index of a dictionary, and name its features."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..analysis.index import FeatureIndex, dictionary_id, index_path, read_index, write_index
from ..analysis.index.clip import clip_labels
from ..analysis.index.endpoint import Endpoint
from ..analysis.labelling import Progress, index_of_host, index_of_shards, label_by_endpoint, words_of
from ..dictionary import Dictionary, load_dictionary
from ..errors import RevelioError
from ..render.example_sheet import label_table
from ..training.harvest import items_of_prompts
from ..training.open_images import items_of_images
from .options import (
    ProgressBar,
    add_json,
    add_model,
    count,
    load_host,
    print_table,
    read_lines,
    require_safetensors,
)

_DESCRIPTION = """\
--data reads harvested activations (add --images if they were harvested from images); --prompts or
--images without --data run the model. Without any of these, the existing index gets new labels. The index,
which includes the labels, is written next to the dictionary as NAME.index.safetensors; the dictionary file
itself is not changed."""


def add(commands: Any) -> None:
    """Add the `label` command to the parser."""
    parser = commands.add_parser(
        "label",
        help="save what each feature fires on most, and name the features",
        description=_DESCRIPTION,
    )
    parser.add_argument("dictionary", type=Path, help="file in any layout")
    parser.add_argument("--out", type=Path, help="the index file; by default next to the dictionary")
    parser.add_argument("--data", type=Path, help="folder of harvested activations")
    parser.add_argument("--prompts", type=Path, help="a text file, one prompt to generate per line")
    parser.add_argument("--images", type=Path, help="a folder of images, each with its caption in NAME.txt")
    parser.add_argument(
        "--pictures", type=count, help="images to generate, cycling over the prompts; default one per prompt"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image")
    add_model(parser)
    parser.add_argument("--top", type=count, default=8, help="examples to save for each feature")
    parser.add_argument("--crop", type=int, default=48, help="side of the saved crops in pixels; 0: no crops")
    parser.add_argument("--by", choices=("captions", "clip", "endpoint"), default="captions")
    parser.add_argument("--clip", type=Path, help="folder of a CLIP model as transformers saves it")
    parser.add_argument("--words", type=Path, help="for clip: words to choose from, one per line")
    parser.add_argument(
        "--endpoint", default="", help="address of a server with OpenAI's API, such as http://…/v1"
    )
    parser.add_argument("--model", default="", help="for endpoint: the name of a model that sees images")
    parser.add_argument("--key-from", default="", help="for endpoint: the environment variable with its key")
    parser.add_argument("--timeout", type=count, default=60, help="for endpoint: longest wait in seconds")
    parser.add_argument("--most", type=count, default=64, help="for endpoint: number of features to label")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    dictionary = load_dictionary(arguments.dictionary)
    out = arguments.out or index_path(arguments.dictionary)
    require_safetensors(out, "an index file")
    add_labels = _labeller(arguments)  # now, so that wrong options are reported before the long work
    if arguments.data or arguments.prompts or arguments.images:
        with ProgressBar("items") as progress:
            index = _build_index(arguments, dictionary, progress)
    else:
        if arguments.by == "captions":
            raise RevelioError(
                "There is nothing to index: give --data, --prompts or --images, or other labels, with --by."
            )
        index = read_index(out)
        if index.dictionary != dictionary_id(dictionary):
            raise RevelioError(f"{out} belongs to another dictionary than {arguments.dictionary}.")
    with ProgressBar("labels") as progress:
        index = add_labels(index, progress)
    write_index(index, out)
    table = _summary(index, out)
    if arguments.json:
        labels = {str(f): [found.text, found.score, found.by] for f, found in sorted(index.labels.items())}
        print_table(table | {"labels": labels}, as_json=True)
    else:
        print_table(table, as_json=False)
        print(label_table(index))


def _summary(index: FeatureIndex, file: Path) -> dict[str, Any]:
    return {
        "file": str(file),
        "features": index.n_features,
        "fired": int((index.starts[1:] > index.starts[:-1]).sum()),
        "pictures": index.items,
        "examples": len(index.value),
        "labelled": len(index.labels),
    }


def _labeller(arguments: argparse.Namespace) -> Callable[[FeatureIndex, Progress], FeatureIndex]:
    """Return the function that adds labels to an index."""
    if arguments.by == "clip":
        if arguments.clip is None:
            raise RevelioError("Labels by CLIP need --clip, the folder of a CLIP model.")
        if arguments.words is None and arguments.prompts is None:
            raise RevelioError("Labels by CLIP need --words, a file with one word to choose from per line.")
        words = read_lines(arguments.words) if arguments.words else words_of(read_lines(arguments.prompts))
        return lambda index, progress: replace(
            index, labels=clip_labels(index, arguments.clip, words, progress)
        )
    if arguments.by == "endpoint":
        if arguments.key_from and not os.environ.get(arguments.key_from):
            raise RevelioError(f"The environment variable {arguments.key_from} is not set or is empty.")
        key = os.environ.get(arguments.key_from, "")
        endpoint = Endpoint(arguments.endpoint, arguments.model, key, arguments.timeout)
        return lambda index, progress: label_by_endpoint(index, endpoint, arguments.most, progress)
    return lambda index, progress: index


def _build_index(arguments: argparse.Namespace, dictionary: Dictionary, progress: Progress) -> FeatureIndex:
    """Build the index from harvested activations, or by running a model."""
    settings: dict[str, Any] = {"top": arguments.top, "crop": arguments.crop, "progress": progress}
    if arguments.data:
        if arguments.prompts:
            raise RevelioError(
                "Give harvested activations with --data, or prompts to generate with --prompts, not both."
            )
        return index_of_shards(dictionary, arguments.data, arguments.images, **settings)
    if arguments.prompts and arguments.images:
        raise RevelioError("Give prompts to generate with --prompts, or images with --images, not both.")
    if arguments.images:
        items = items_of_images(arguments.images)
    else:
        items = items_of_prompts(read_lines(arguments.prompts), arguments.seed, arguments.pictures)
    host = load_host(arguments)
    return index_of_host(dictionary, host, items, host.images, batch=arguments.batch, **settings)
