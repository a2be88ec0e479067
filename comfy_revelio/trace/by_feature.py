"""Sort the codes of a run by feature, so that the map of a feature at one step is one short slice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RevelioError
from .frames import Frame

LEVELS = 32767
"""Values are stored as integer multiples of 1 / 32767 of the largest absolute value of their feature."""


def by_feature(frames: Sequence[Frame], item: int) -> dict[str, Tensor]:
    """Sort the codes of one batch item by feature, into compact tensors for S steps and n features.

    frames: the frames of one hook point and role (`Trace.steps`). The entries from starts[f * S + s] to
    starts[f * S + s + 1] - 1 are the tokens on which feature f fires in frame s:

    starts: int32 [n * S + 1].
    tokens: int16 [entries], the bits of an unsigned token number (row * width + column); int32 on grids of
    more than 65,536 tokens.
    values: int16 [entries]; values * scale[f] are the codes. scale: float32 [n].
    steps: int32 [S], the frames' steps. sigmas: float32 [S].
    """
    if len({frame.grid for frame in frames}) != 1:
        raise RevelioError("The recorded steps differ in size; read one step at a time.")
    n, steps = frames[0].codes.n_features, len(frames)
    keys, tokens, values = [], [], []
    for number, frame in enumerate(frames):
        codes = frame.codes[item]
        fires = codes.values != 0
        keys.append(codes.indices[fires] * steps + number)
        tokens.append(fires.nonzero()[:, 0])
        values.append(codes.values[fires])
    key, order = torch.cat(keys).sort(stable=True)
    value, token = torch.cat(values)[order], torch.cat(tokens)[order]
    feature = key // steps
    peak = torch.zeros(n).scatter_reduce_(0, feature, value.abs(), "amax")
    scale = peak / LEVELS
    level = (value / scale[feature].clamp(min=torch.finfo(torch.float32).tiny)).round()
    height, width = frames[0].grid
    counts = torch.bincount(key, minlength=n * steps)
    return {
        "starts": torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32),
        "tokens": token.to(torch.int32).to(torch.int16) if height * width <= 2**16 else token.to(torch.int32),
        "values": level.clamp(-LEVELS, LEVELS).to(torch.int16),
        "scale": scale,
        "steps": torch.tensor([frame.step for frame in frames], dtype=torch.int32),
        "sigmas": torch.tensor([frame.sigma for frame in frames], dtype=torch.float32),
    }
