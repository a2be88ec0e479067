"""``python -m lab``: the steps that make Revelio Mini, one command each, in this order:
data, judge, vae, model, saes. Each shows its progress. A killed step resumes when run again, except saes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfy_revelio.errors import RevelioError

from .data.attributes import NAMESPACES, SPLITS


def _add_data(commands: Any) -> None:
    parser = commands.add_parser("data", help="render avatars with exact labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--namespace", choices=NAMESPACES, required=True, help="what the avatars are for")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first avatar in its namespace")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--size", type=int, default=128)
    parser.set_defaults(run=_data)


def _data(arguments: argparse.Namespace) -> None:
    from .data.make import make

    make(
        arguments.out,
        namespace=arguments.namespace,
        count=arguments.count,
        split=arguments.split,
        workers=arguments.workers,
        size=arguments.size,
        first=arguments.first,
    )


def _training_parser(commands: Any, name: str, help: str, run: Callable[[argparse.Namespace], None]) -> Any:
    parser = commands.add_parser(name, help=help)
    parser.add_argument("--data", type=Path, required=True, help="folder of avatars to train on")
    parser.add_argument("--steps", type=int, help="length of the run in batches")
    parser.add_argument(
        "--minutes", type=float, help="choose the number of steps so that the run takes this long"
    )
    parser.add_argument("--batch", type=int, help="images in a batch")
    parser.add_argument("--lr", type=float, help="highest learning rate")
    parser.add_argument("--device", default="", help="cuda or cpu; by default cuda if there is one")
    parser.add_argument("--go-on", action="store_true", help="start from the bundled weights")
    parser.set_defaults(run=run)
    return parser


def _settings(arguments: argparse.Namespace, *more: str) -> dict[str, Any]:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    names = ("steps", "minutes", "batch", "lr", "go_on", *more)
    chosen = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return {**chosen, "device": arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")}


def _judge(arguments: argparse.Namespace) -> None:
    from .train.judge import train

    _report(train(arguments.data, arguments.held_out, **_settings(arguments)))


def _vae(arguments: argparse.Namespace) -> None:
    from .train.vae import train

    _report(train(arguments.data, arguments.held_out, **_settings(arguments)))


def _model(arguments: argparse.Namespace) -> None:
    from .train.unet_and_text_encoder import train

    settings = _settings(arguments, "wordings", "workers", "compiled")
    _report(train(arguments.data, **settings))


def _saes(arguments: argparse.Namespace) -> None:
    from comfy_revelio.host.standalone import use_comfyui

    use_comfyui()
    from .train.saes import train_all

    train_all(arguments.pictures, arguments.pairs, arguments.captions, device=arguments.device)


def _report(metrics: dict[str, float]) -> None:
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}, indent=2))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_data(commands)
    judge = _training_parser(commands, "judge", "train the judge that reads attributes from pixels", _judge)
    vae = _training_parser(commands, "vae", "train the autoencoder", _vae)
    model = _training_parser(commands, "model", "train text encoder and UNet", _model)
    for checked in (judge, vae):
        checked.add_argument("--held-out", type=Path, required=True, help="folder of avatars to measure on")
    model.add_argument("--wordings", type=int, help="captions made for each image")
    model.add_argument("--workers", type=int, help="processes that write captions")
    model.add_argument(
        "--compiled",
        action="store_true",
        help="needs a C++ compiler and two minutes to fuse operations; then a CPU trains a quarter faster",
    )
    saes = commands.add_parser("saes", help="train the SAEs on the model's activations in ComfyUI")
    saes.add_argument("--pictures", type=int, default=64, help="images to generate to train the UNet's SAEs")
    saes.add_argument(
        "--pairs", type=int, default=56, help="prompts to repeat with each of about twenty words added"
    )
    saes.add_argument("--captions", type=int, default=4000, help="captions for the text SAE")
    saes.add_argument("--device", default="", help="cuda or cpu; by default cuda if there is one")
    saes.set_defaults(run=_saes)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except RevelioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
