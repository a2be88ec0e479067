"""How places, prompt halves and pictures are called in figures."""

from __future__ import annotations

import re

from ..trace import Reading

_PLACES = (
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


def place_name(hook_point: str) -> str:
    """A hook point for people, with its own name behind: "middle block (middle_block.1)"."""
    for pattern, words in _PLACES:
        if match := re.fullmatch(pattern, hook_point):
            return f"{words.format(*match.groups())} ({hook_point})"
    return hook_point


def feature_name(feature: int, label: str) -> str:
    """A feature in one line: "#1203 glasses"."""
    return f"#{feature} {label}".rstrip()


def facts(reading: Reading) -> list[str]:
    """What was read, for the line under a title: the prompt half, the picture, the frame."""
    kind = ROLE_NAMES.get(reading.role.rstrip("0123456789"), "")
    said = [f"{kind} ({reading.role})" if kind else reading.role]
    if reading.trace.batch_size > 1:
        said.append(f"image {reading.item + 1} of {reading.trace.batch_size}")
    if (count := reading.trace.video_frames(reading.hook_point)) > 1:
        one = reading.frame
        said.append(f"strongest of {count} frames" if one is None else f"frame {one + 1} of {count}")
    return said
