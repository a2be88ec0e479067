"""Find the images of a folder and their prompts, to harvest from, and read their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import RevelioError
from .harvest import Item, SamplingSettings

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def items_of_images(folder: Path) -> list[Item]:
    """Return one item per image in a folder, sorted by name. The prompt of NAME.png is read from NAME.txt."""
    if not folder.is_dir():
        raise RevelioError(f"There is no folder {folder}; check its name.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise RevelioError(f"There are no images in {folder}; the types are {', '.join(SUFFIXES)}.")
    items = []
    for number, file in enumerate(files):
        caption = file.with_suffix(".txt")
        text = caption.read_text(encoding="utf-8").strip() if caption.is_file() else ""
        items.append(Item(number, text, number, file))
    return items


def read_image(item: Item, settings: SamplingSettings) -> Tensor:
    """Read an item's image, cropped and resized to the settings' size: float32 [height, width, 3] in 0..1."""
    assert item.image is not None
    size = (settings.width, settings.height)
    try:
        with Image.open(item.image) as image:
            fitted = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RevelioError(f"{item.image} cannot be read as an image ({error}); remove it.") from None
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255)
