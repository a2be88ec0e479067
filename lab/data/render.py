"""Draw images of avatars and pixel masks of their parts, with DiceBear and resvg in a Node process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comfy_revelio.errors import RevelioError

from .attributes import HIDDEN, Labels, to_dict
from .drawing import HEAD_IN_HAIR, INK_VIOLET, hair_colour_option, options_for

PACKAGES = ("@dicebear/core@9.4.3", "@dicebear/collection@9.4.3", "@resvg/resvg-js@2.6.2")
PARTS = ("glasses", "hat", "beard", "hair", "background")
_SCRIPT = Path(__file__).with_name("avatars.mjs")
_REPOSITORY = Path(__file__).resolve().parents[2]
_SAME = 24
"""A pixel belongs to a part if leaving the part out changes it by more than this (sum over R, G, B)."""


def packages_folder() -> Path:
    """Return the folder that contains node_modules: REVELIO_AVATARS, else <repository>/.dev/avatars."""
    return Path(os.environ.get("REVELIO_AVATARS") or _REPOSITORY / ".dev" / "avatars").resolve()


def node() -> str:
    """Find the Node executable: REVELIO_NODE, else the one on PATH."""
    found = shutil.which(os.environ.get("REVELIO_NODE") or "node")
    if not found:
        raise RevelioError(
            "Node.js was not found; install Node 18 or newer, or set REVELIO_NODE to its executable."
        )
    return found


def ensure_packages() -> Path:
    """Return the packages folder; on first use, let npm install the packages into it."""
    folder = packages_folder()
    modules = folder / "node_modules"
    if (modules / "@dicebear" / "core").is_dir() and (modules / "@resvg" / "resvg-js").is_dir():
        return folder
    npm = shutil.which("npm")
    if not npm:
        raise RevelioError(
            f"The avatar packages are not in {folder} and npm was not found; install Node.js with npm."
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RevelioError(f"npm could not install the avatar packages into {folder}: {last}")
    return folder


def draw(orders: Sequence[dict[str, Any]], *, size: int = 128) -> np.ndarray:
    """Draw avatars from orders that ``drawing.options_for`` returned: uint8 ``[N, size, size, 3]``."""
    if not orders:
        return np.zeros((0, size, size, 3), dtype=np.uint8)
    command = [node(), str(_SCRIPT), str(ensure_packages()), str(size)]
    expected = len(orders) * size * size * 3
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None and process.stdout is not None
        feeder = threading.Thread(target=_feed, args=(process.stdin, orders), daemon=True)
        feeder.start()
        frames = process.stdout.read()
        code = process.wait()
        feeder.join()
        process.stdout.close()
        if code or len(frames) != expected:
            errors.seek(0)
            lines = [line for line in errors.read().decode(errors="replace").splitlines() if "Error" in line]
            raise RevelioError(
                f"Drawing avatars failed in Node (exit code {code}): {(lines or ['no message'])[0]}"
            )
    return np.frombuffer(frames, dtype=np.uint8).reshape(len(orders), size, size, 3)


def _feed(pipe: Any, orders: Sequence[dict[str, Any]]) -> None:
    # a separate thread, because Node may wait for us to read its frames before it reads the next order
    try:
        for order in orders:
            pipe.write(json.dumps(order).encode() + b"\n")
        pipe.close()
    except OSError:
        pass  # Node has ended early; draw() reports why


def render(
    labels: Sequence[Labels | Sequence[int] | np.ndarray] | np.ndarray,
    seeds: Sequence[str],
    *,
    size: int = 128,
) -> np.ndarray:
    """Draw avatars, uint8 ``[N, size, size, 3]``; the same labels and seed always give the same image."""
    if len(labels) != len(seeds):
        raise RevelioError(
            f"There are {len(labels)} labels but {len(seeds)} seeds; each avatar needs one of each."
        )
    return draw([options_for(row, seed) for row, seed in zip(labels, seeds, strict=True)], size=size)


def masks(
    labels: Labels | Sequence[int] | np.ndarray, seed: str, part: str, *, size: int = 128
) -> np.ndarray:
    """Return a part's mask, bool ``[size, size]``: the pixels that change when the part is left out.

    ``part`` is one of PARTS. All False if the avatar lacks the part or a hat hides the hair. Outlines drawn
    together with a part count as the part; the hats of ink sketches include a little of the chin's outline.
    """
    if part not in PARTS:
        raise RevelioError(f"Unknown part {part!r}; use one of: {', '.join(PARTS)}.")
    order = options_for(labels, seed)
    if part == "background":
        black, white = draw(
            [order | {"background": colour} for colour in ("000000", "ffffff")], size=size
        ).astype(int)
        return (white - black).mean(axis=-1) > 127.5
    if part == "hair" and to_dict(labels)["hair"] == HIDDEN:
        return np.zeros((size, size), dtype=bool)
    bare = options_for(labels, seed, without=part)
    if part == "hair" and order["style"] in HEAD_IN_HAIR:
        # the hair is drawn together with the head: recolour it and take the pixels changed outside the beard
        shaven = options_for(labels, seed, without="beard")
        recoloured = shaven | {"options": shaven["options"] | hair_colour_option(order["style"], INK_VIOLET)}
        image, other, bearded = draw([shaven, recoloured, order], size=size).astype(int)
        same_beard = np.abs(image - bearded).sum(axis=-1) <= _SAME
        found = (np.abs(image - other).sum(axis=-1) > _SAME) & same_beard
        if found.any():  # some ink sketches ignore the colour option: their hair is always black
            return found
    both = draw([order, bare], size=size).astype(int)
    return np.abs(both[0] - both[1]).sum(axis=-1) > _SAME
