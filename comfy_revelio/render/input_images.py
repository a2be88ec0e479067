"""Images that users connect: checked, and the one that belongs to what was recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import RevelioError
from ..trace import Reading


def image_of_reading(images: Tensor | None, reading: Reading) -> Tensor | None:
    """The image [H, W, C] of the reading's batch item among images [n, H, W, C]; None for none.

    A single image serves every item. Of a video, whose images are its frames, it is the frame at the same
    share of its length as the recorded one, or the middle one.
    """
    if images is None or len(images) < 2 or (count := reading.trace.video_frames(reading.hook_point)) == 1:
        return image_of_item(images, reading.item)
    videos = reading.trace.batch_size
    each = len(images) // videos if len(images) % videos == 0 else len(images)
    share = 0.5 if reading.frame is None else reading.frame / (count - 1)
    first = reading.item * each if each < len(images) else 0
    return images[first + min(each - 1, round(share * (each - 1)))]


def image_of_item(images: Tensor | None, item: int) -> Tensor | None:
    """The image [H, W, C] of one batch item of images [n, H, W, C]; a single image serves every item."""
    if images is None or len(images) == 1:
        return None if images is None else images[0]
    _check_not_empty(images)
    if item >= len(images):
        raise RevelioError(
            f"The connected batch has no image {item}; choose an item from 0 to {len(images) - 1}."
        )
    return images[item]


def checked_image(image: Tensor, what: str = "image") -> Tensor:
    """An image as float32 [H, W, 3] on the CPU in 0..1; an alpha channel and a batch of one are dropped."""
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise RevelioError(
            f"The {what} must be an RGB or RGBA image, height x width x channels; its shape is "
            f"{' x '.join(map(str, image.shape))}."
        )
    return torch.nan_to_num(image[..., :3].detach().float().cpu()).clamp(0.0, 1.0)


def checked_batch(images: Tensor, what: str) -> Tensor:
    """The images themselves when they are [n, H, W, 3 or 4]; what: the name of their input."""
    _check_not_empty(images)
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or 0 in images.shape:
        raise RevelioError(f"The input {what!r} needs RGB or RGBA images; connect an IMAGE output.")
    return images


def _check_not_empty(images: Tensor) -> None:
    if len(images) == 0:
        raise RevelioError("The connected batch of images is empty; connect at least one image.")
