"""Finding how a dictionary carries a concept, from pictures with it and pictures without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..dictionary import Concept, Dictionary
from ..dictionary.concept import image_kinds, single_kind_reader
from ..errors import RevelioError
from ..trace import Frame, Trace
from .contrast import check_same_steps

FINEST = 16
"""Cells a side of a concept's maps, at most."""
_EPS = 1e-3
_PRIOR = 8.0
"""Maps for which the mean over all kinds counts in the mean of one kind: few maps say little."""


@torch.no_grad()
def concept_between(
    dictionary: Dictionary,
    with_it: Iterable[Tensor],
    without: Iterable[Tensor],
    *,
    reader: Tensor | None = None,
    count: int = 64,
) -> Concept:
    """The `count` features that carry most of what a concept changes, and their maps in each kind of picture.

    with_it, without: activations [n, height, width, d_model] of pictures with the concept and without it, as
    many such as there are (one for each step, say), all on one grid. Best are the same prompts and seeds on
    both sides; else many pictures that differ in everything else by chance. reader: tells the kinds of
    pictures apart, as in Concept and from `kind_reader`; None for one kind.

    With dz the difference of the mean codes [height, width, features], a feature carries
    sum(dz_f * (dz @ W_dec) . W_dec_f): its part of the squared length of the change in the activations. So
    features count that fire as well without the concept, but elsewhere; their maps tell the two apart.
    Raises RevelioError when a side is empty.
    """
    if reader is None:
        reader = single_kind_reader(dictionary.d_model)
    high, low = (_sums(dictionary, side, reader) for side in (with_it, without))
    if high.codes.shape != low.codes.shape:
        raise RevelioError(
            f"Both sides of a concept must be of one size, not {list(high.codes.shape[1:3])} and "
            f"{list(low.codes.shape[1:3])}; use pictures of one size."
        )
    return concept_of_means(dictionary, high.means(), low.means(), reader=reader, count=count)


@torch.no_grad()
def concept_of_means(
    dictionary: Dictionary, high: Tensor, low: Tensor, *, reader: Tensor | None = None, count: int = 64
) -> Concept:
    """`concept_between` from mean codes [kinds, height, width, n_features] with and without the concept."""
    W_dec = dictionary.directions(range(dictionary.n_features))
    high, low = high.to(W_dec.device), low.to(W_dec.device)
    change = (high - low).flatten(0, 2)
    carried = (change * ((change @ W_dec) @ W_dec.T)).sum(dim=0)
    features = carried.argsort(descending=True, stable=True)[:count]
    high, low = (side[..., features].permute(0, 3, 1, 2) for side in (high, low))
    share = ((high - low) / (high + _EPS)).clamp(0, 1)
    reader = single_kind_reader(dictionary.d_model) if reader is None else reader
    return Concept(tuple(features.tolist()), (high - low).cpu(), share.cpu(), reader.cpu())


def concept_of_runs(
    dictionary: Dictionary, with_it: Trace, without: Trace, *, role: str = "cond", count: int = 64
) -> tuple[Concept, str]:
    """(`concept_between` of what two runs recorded with this dictionary, the place of the model).

    The mean is over pictures, over the steps that both recorded and over the frames of a video; all are of
    one kind. Best are several pictures on each side, with the same seeds and prompts but for the concept.
    Raises RevelioError when the runs were not recorded with the dictionary, are of unlike sizes, or do not
    differ.
    """
    place = _place_of(dictionary, with_it)
    if place not in _places(dictionary, without):
        raise RevelioError(
            f"The run without the concept has no record of {place}; record both runs with the same SAEs."
        )
    check_same_steps(with_it, without)
    ours, theirs = ({frame.step: frame for frame in trace.steps(place, role)} for trace in (with_it, without))
    steps = [step for step in ours if step in theirs]
    if not steps:
        raise RevelioError(f"The two runs recorded no step of {place} in common; record the same steps.")
    for step in steps:
        (height, width), (other_height, other_width) = (side[step].grid[-2:] for side in (ours, theirs))
        if (height, width) != (other_height, other_width):
            raise RevelioError(
                f"The two runs have maps of {height} x {width} and {other_height} x {other_width}; draw the "
                "pictures of both in one size."
            )
    smallest = tuple(min(FINEST, *(ours[step].grid[side] for step in steps)) for side in (-2, -1))
    high, low = (_mean_codes([side[step] for step in steps], *smallest) for side in (ours, theirs))
    if torch.equal(high, low):
        raise RevelioError(
            "The two runs do not differ; give one the prompts with the concept, the other those without it."
        )
    return concept_of_means(dictionary, high, low, count=count), place


def _places(dictionary: Dictionary, trace: Trace) -> list[str]:
    trace.place()  # says so when the trace is empty
    return trace.hook_points_of(dictionary)


def _place_of(dictionary: Dictionary, trace: Trace) -> str:
    if found := _places(dictionary, trace):
        return found[0]
    raise RevelioError(
        f"This SAE (of {dictionary.hook_point or 'no named place'}) recorded nothing in this trace; connect "
        f"the SAE that recorded {' or '.join(trace.hook_points)}."
    )


def _mean_codes(frames: Sequence[Frame], height: int, width: int) -> Tensor:
    """The mean code in each of height x width cells: float32 [1, height, width, n_features].

    The maps of the frames are of any sizes that are no smaller: some nodes shrink the first steps.
    """
    n = frames[0].codes.n_features
    sums, tokens = torch.zeros(height * width * n), torch.zeros(height * width)
    for frame in frames:
        full_height, full_width = frame.grid[-2:]
        rows = torch.arange(full_height) * height // full_height
        columns = torch.arange(full_width) * width // full_width
        cell = (rows[:, None] * width + columns).flatten()
        items, count = frame.codes.shape
        cells = cell.repeat(count // len(cell))  # of a video, frame by frame
        where = cells[:, None] * n + frame.codes.indices.cpu()
        sums.index_add_(0, where.flatten(), frame.codes.values.float().cpu().flatten())
        tokens += items * torch.bincount(cells, minlength=height * width)
    return (sums.view(-1, n) / tokens[:, None]).view(1, height, width, n)


def codes_on_grid(dictionary: Dictionary, maps: Tensor) -> Tensor:
    """The codes of maps [n, height, width, d_model] as a full table, float32 [n, h, w, n_features].

    Averaged to at most FINEST cells a side: a concept's place needs no more, and the table stays small.
    """
    height, width = (min(FINEST, side) for side in maps.shape[1:3])
    device = dictionary.W_enc.device
    parts = [dictionary.encode(one.to(device)).dense() for one in maps.split(1)]
    small = [adaptive_avg_pool2d(part.permute(0, 3, 1, 2), (height, width)) for part in parts]
    return torch.cat(small).permute(0, 2, 3, 1)


@dataclass
class _Sums:
    """Codes added up by kind of picture: codes [kinds, height, width, n_features]; counts [kinds] of maps."""

    codes: Tensor
    counts: Tensor

    def means(self) -> Tensor:
        """The mean code of each kind, drawn towards the mean over all kinds where there are few maps."""
        overall = self.codes.sum(dim=0) / self.counts.sum()
        weights = self.counts[:, None, None, None].to(self.codes)
        return (self.codes + _PRIOR * overall) / (weights + _PRIOR)


def _sums(dictionary: Dictionary, parts: Iterable[Tensor], reader: Tensor) -> _Sums:
    total: _Sums | None = None
    for maps in parts:
        kinds = image_kinds(maps.float().mean(dim=(1, 2)), reader.to(maps.device))
        for one, kind in zip(maps.split(1), kinds.tolist(), strict=True):
            here = codes_on_grid(dictionary, one)[0]
            if total is None:
                total = _Sums(here.new_zeros(len(reader), *here.shape), torch.zeros(len(reader)))
            total.codes[kind] += here
            total.counts[kind] += 1
    if total is None:
        raise RevelioError(
            "There are no pictures with, or none without the concept; give at least one of each."
        )
    return total
