"""The names of hook points, features, prompts and images in figures."""

from __future__ import annotations

import re

from ..trace import Reading

_HOOK_POINTS = (
    (r"middle_block\.\d+", "middle block"),
    (r"input_blocks\.(\d+)\.\d+", "down block {}"),
    (r"output_blocks\.(\d+)\.\d+", "up block {}"),
    (r"(?:joint|double|double_stream)_(?:blocks|layers)\.(\d+)", "double block {}, image"),
    (r"(?:joint|double|double_stream)_(?:blocks|layers)\.(\d+)\.txt", "double block {}, text"),
    (r"single_(?:stream_)?(?:blocks|layers)\.(\d+)", "single block {}, image"),
    (r"single_(?:stream_)?(?:blocks|layers)\.(\d+)\.txt", "single block {}, text"),
    (r"(?:transformer_blocks|blocks|layers)\.(\d+)", "block {}"),
)
ROLE_NAMES = {"cond": "positive prompt", "uncond": "negative prompt"}


def hook_point_name(hook_point: str) -> str:
    """Describe a hook point in words, followed by its name in parentheses.

    >>> hook_point_name("output_blocks.4.1")
    'up block 4 (output_blocks.4.1)'
    """
    for pattern, words in _HOOK_POINTS:
        if match := re.fullmatch(pattern, hook_point):
            return f"{words.format(*match.groups())} ({hook_point})"
    return hook_point


def feature_name(feature: int, label: str) -> str:
    """Return a feature's number and label: "#1203 glasses"."""
    return f"#{feature} {label}".rstrip()


def facts(reading: Reading) -> list[str]:
    """Return the parts of the line under a title: the prompt and, if there are several, image and frame."""
    kind = ROLE_NAMES.get(reading.role.rstrip("0123456789"), "")
    parts = [f"{kind} ({reading.role})" if kind else reading.role]
    if reading.trace.batch_size > 1:
        parts.append(f"image {reading.item + 1} of {reading.trace.batch_size}")
    if (count := reading.trace.video_frames(reading.hook_point)) > 1:
        frame = reading.frame
        parts.append(f"strongest of {count} frames" if frame is None else f"frame {frame + 1} of {count}")
    return parts
