"""Check the images that users connect, and pick the image that belongs to a recorded batch item."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import RevelioError
from ..trace import Reading


def image_of_reading(images: Tensor | None, reading: Reading) -> Tensor | None:
    """Return the image [H, W, C] of the reading's batch item; None if images [n, H, W, C] is None.

    A single image is used for every item. If a video was recorded, the images are its frames; the result is
    the frame at the same relative position as the reading's frame, or the middle frame if the latter is None.
    """
    if images is None or len(images) < 2 or (count := reading.trace.video_frames(reading.hook_point)) == 1:
        return image_of_item(images, reading.item)
    videos = reading.trace.batch_size
    each = len(images) // videos if len(images) % videos == 0 else len(images)
    share = 0.5 if reading.frame is None else reading.frame / (count - 1)
    first = reading.item * each if each < len(images) else 0
    return images[first + min(each - 1, round(share * (each - 1)))]


def image_of_item(images: Tensor | None, item: int) -> Tensor | None:
    """Return the image [H, W, C] of a batch item from images [n, H, W, C]; a single image fits every item."""
    if images is None or len(images) == 1:
        return None if images is None else images[0]
    _check_not_empty(images)
    if item >= len(images):
        raise RevelioError(
            f"The connected batch has no image {item}; choose an item from 0 to {len(images) - 1}."
        )
    return images[item]


def checked_image(image: Tensor, what: str = "image") -> Tensor:
    """Return an image as float32 [H, W, 3] in 0..1 on the CPU, without alpha channel or batch dimension."""
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise RevelioError(
            f"The {what} must be an RGB or RGBA image, height x width x channels; its shape is "
            f"{' x '.join(map(str, image.shape))}."
        )
    return torch.nan_to_num(image[..., :3].detach().float().cpu()).clamp(0.0, 1.0)


def checked_batch(images: Tensor, what: str) -> Tensor:
    """Return the images; raise RevelioError unless they are [n, H, W, 3 or 4]. what: the input's name."""
    _check_not_empty(images)
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or 0 in images.shape:
        raise RevelioError(f"The input {what!r} needs RGB or RGBA images; connect an IMAGE output.")
    return images


def _check_not_empty(images: Tensor) -> None:
    if len(images) == 0:
        raise RevelioError("The connected batch of images is empty; connect at least one image.")
