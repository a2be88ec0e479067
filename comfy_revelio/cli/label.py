"""`python -m comfy_revelio label`: the feature index of a dictionary, and names for its features."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import RevelioError

_HOW = """Where the activations come from: --data takes harvested ones, and --images with it the pictures they
were harvested from; --prompts or --images alone run the model. With none of them the index that is there gets
new labels. The index is written beside the dictionary, as NAME.index.safetensors, and holds the labels: a
dictionary file of any layout stays as it is."""


def add_label(commands: Any, count: Callable[[str], int], host: Callable[[argparse.Namespace], Any]) -> None:
    """Add the command to the others. count: a whole number from 1; host: the model that arguments name."""
    label = commands.add_parser(
        "label", help="keep what each feature fires on most, and name the features", description=_HOW
    )
    label.add_argument("dictionary", type=Path, help="file of any layout")
    label.add_argument("--out", type=Path, help="the index file; by default beside the dictionary")
    label.add_argument("--data", type=Path, help="folder of harvested activations")
    label.add_argument("--prompts", type=Path, help="a text file, one prompt a line, to draw")
    label.add_argument("--images", type=Path, help="a folder of pictures, NAME.txt beside one is its caption")
    label.add_argument(
        "--checkpoint", type=Path, help="a checkpoint for ComfyUI; by default the bundled model"
    )
    label.add_argument(
        "--pictures", type=count, help="draw so many, each prompt in turn; by default each once"
    )
    label.add_argument("--seed", type=int, default=0, help="of the first picture")
    label.add_argument("--steps", type=count, default=20)
    label.add_argument("--cfg", type=float, default=3.0)
    label.add_argument("--size", default="", help="WIDTHxHEIGHT; by default 128x128, 512x512 if not bundled")
    label.add_argument("--batch", type=count, default=8, help="pictures at once")
    label.add_argument("--top", type=count, default=8, help="examples of each feature")
    label.add_argument("--crop", type=int, default=48, help="side of the crops in pixels; 0 keeps none")
    label.add_argument("--by", choices=("captions", "clip", "endpoint"), default="captions")
    label.add_argument("--clip", type=Path, help="folder of a CLIP model as transformers saves it")
    label.add_argument("--words", type=Path, help="for clip: words to choose from, one a line")
    label.add_argument("--endpoint", default="", help="address that speaks OpenAI's API, such as http://…/v1")
    label.add_argument("--model", default="", help="for endpoint: the name of a model that sees pictures")
    label.add_argument("--key-from", default="", help="for endpoint: the environment variable with its key")
    label.add_argument("--timeout", type=count, default=60, help="for endpoint: seconds for one answer")
    label.add_argument("--most", type=count, default=64, help="for endpoint: features to ask about")
    label.add_argument("--json", action="store_true", help="print JSON")
    label.set_defaults(run=lambda arguments: _label(arguments, host), diffusers=None)


def _label(arguments: argparse.Namespace, host: Callable[[argparse.Namespace], Any]) -> None:
    from ..analysis.index import dictionary_id, index_path, read_index, write_index
    from ..dictionary import load_dictionary

    dictionary = load_dictionary(arguments.dictionary)
    out = arguments.out or index_path(arguments.dictionary)
    if out.suffix != ".safetensors":
        raise RevelioError(f"The name of an index file ends in .safetensors; {out} does not.")
    ways = _ways(arguments)  # all that can be wrong with them shows before the long work
    if arguments.data or arguments.prompts or arguments.images:
        index = _built(arguments, dictionary, host)
    else:
        if arguments.by == "captions":
            raise RevelioError(
                "There is nothing to look at: give --data, --prompts or --images, or other labels by --by."
            )
        index = read_index(out)
        if index.dictionary != dictionary_id(dictionary):
            raise RevelioError(f"{out} belongs to another dictionary than {arguments.dictionary}.")
    index = ways(index)
    write_index(index, out)
    from .main import print_table

    labels = {str(f): [one.text, one.score, one.by] for f, one in sorted(index.labels.items())}
    told: dict[str, Any] = {
        "file": str(out),
        "features": index.n_features,
        "fired": int((index.starts[1:] > index.starts[:-1]).sum()),
        "pictures": index.items,
        "examples": len(index.value),
        "labelled": len(labels),
    }
    if arguments.json:
        print_table(told | {"labels": labels}, as_json=True)
        return
    from ..render.example_sheet import label_table

    print_table(told, as_json=False)
    print(label_table(index))


def _ways(arguments: argparse.Namespace) -> Callable[[Any], Any]:
    """What gives an index its labels."""
    from ..analysis.index.clip import clip_labels
    from ..analysis.index.endpoint import Endpoint
    from ..analysis.labelling import label_by_endpoint, words_of

    if arguments.by == "clip":
        if arguments.clip is None:
            raise RevelioError("Labels by CLIP need --clip, the folder of a CLIP model.")
        source = arguments.words or arguments.prompts
        if source is None:
            raise RevelioError("Labels by CLIP need --words, a file with words to choose from, one a line.")
        lines = _lines(source)
        words = lines if arguments.words else words_of(lines)
        return lambda index: replace(index, labels=clip_labels(index, arguments.clip, words, _say))
    if arguments.by == "endpoint":
        if arguments.key_from and not os.environ.get(arguments.key_from):
            raise RevelioError(f"The environment variable {arguments.key_from} holds no key.")
        key = os.environ.get(arguments.key_from, "")
        endpoint = Endpoint(arguments.endpoint, arguments.model, key, arguments.timeout)
        return lambda index: label_by_endpoint(index, endpoint, arguments.most, _say)
    return lambda index: index


def _built(arguments: argparse.Namespace, dictionary: Any, host: Callable[[argparse.Namespace], Any]) -> Any:
    from ..analysis.labelling import index_of_host, index_of_shards
    from ..training.harvest import items_of_images, items_of_prompts

    if arguments.data:
        if arguments.prompts:
            raise RevelioError("Give harvested activations with --data, or --prompts to draw, not both.")
        return index_of_shards(
            dictionary,
            arguments.data,
            arguments.images,
            top=arguments.top,
            crop=arguments.crop,
            progress=_say,
        )
    if arguments.prompts and arguments.images:
        raise RevelioError("Give --prompts to draw, or --images to look at, not both.")
    if arguments.images:
        items = items_of_images(arguments.images)
    else:
        prompts = _lines(arguments.prompts)
        count = arguments.pictures or len(prompts)
        items = items_of_prompts([prompts[n % len(prompts)] for n in range(count)], arguments.seed)
    runner = host(arguments)
    return index_of_host(
        dictionary,
        runner,
        items,
        runner.pictures,
        top=arguments.top,
        crop=arguments.crop,
        batch=arguments.batch,
        progress=_say,
    )


def _lines(file: Path) -> Sequence[str]:
    from .main import lines_of_file

    return lines_of_file(file)


def _say(done: int, count: int) -> None:
    print(f"{done}/{count}", file=sys.stderr, flush=True)
