"""Which of the connected pictures belongs to what was recorded."""

from __future__ import annotations

from torch import Tensor

from ..errors import RevelioError
from ..trace import Reading


def image_of(images: Tensor | None, reading: Reading) -> Tensor | None:
    """The picture [H, W, 3] of the reading's batch item among images [n, H, W, 3]; None for none.

    A single picture serves every item. Of a video, whose images are its frames, it is the frame that lies at
    the same share of its length as the recorded one, or the middle one.
    Raises RevelioError when the batch has no such picture.
    """
    if images is None or len(images) == 1:
        return None if images is None else images[0]
    _check_any(images)
    count = reading.trace.video_frames(reading.hook_point)
    if count > 1:
        videos = reading.trace.batch_size
        each = len(images) // videos if len(images) % videos == 0 else len(images)
        where = 0.5 if reading.frame is None else reading.frame / (count - 1)
        first = reading.item * each if each < len(images) else 0
        return images[first + min(each - 1, round(where * (each - 1)))]
    return still_image(images, reading.item)


def still_image(images: Tensor | None, item: int) -> Tensor | None:
    """The picture [H, W, C] of one batch item; a single picture serves every item.

    Raises RevelioError when the batch has no such picture.
    """
    if images is None or len(images) == 1:
        return None if images is None else images[0]
    _check_any(images)
    if item >= len(images):
        raise RevelioError(
            f"There is no image {item} in the connected batch; choose an item from 0 to {len(images) - 1}."
        )
    return images[item]


def checked_batch(images: Tensor, what: str) -> Tensor:
    """The images themselves when they are pictures [n, H, W, 3 or 4] that can be shown.

    what: the input's name. Raises RevelioError otherwise.
    """
    _check_any(images)
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or 0 in images.shape:
        raise RevelioError(f"What is connected to {what} is no picture in colour; connect a picture.")
    return images


def _check_any(images: Tensor) -> None:
    if len(images) == 0:
        raise RevelioError("The connected batch of images is empty; connect a picture.")
