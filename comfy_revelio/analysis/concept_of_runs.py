"""Find the features by which a dictionary represents a concept, from images with and without the concept.

    dz        = mean code with the concept - mean code without it            for each kind of image and cell
    carried_f = sum over kinds and cells of dz_f (dz W_dec) . W_dec[f]

carried_f is what feature f contributes to the squared length of the change in the activations. Its sum over
cells also finds features that fire as strongly without the concept, but in other cells.
"""

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
"""The most cells on a side of a concept's maps."""
_EPS = 1e-3
_PRIOR = 8.0
"""In each kind's mean code, the mean over all kinds counts as much as this many images of the kind."""


@torch.no_grad()
def concept_between(
    dictionary: Dictionary,
    with_it: Iterable[Tensor],
    without: Iterable[Tensor],
    *,
    reader: Tensor | None = None,
    count: int = 64,
) -> Concept:
    """Find the `count` features that carry most of a concept's change, and their maps for each kind of image.

    with_it, without: batches of activations [n, height, width, d_model], all on one grid, of images with and
    without the concept. Use the same prompts and seeds for both if possible; otherwise, use many images whose
    other differences are random. reader: recognises the kind of an image (`Concept.reader`, made by
    `kind_reader`); None if all images are of one kind.
    """
    if reader is None:
        reader = single_kind_reader(dictionary.d_model)
    high, low = (_sums(dictionary, side, reader) for side in (with_it, without))
    if high.codes.shape != low.codes.shape:
        raise RevelioError(
            f"Both sides of a concept must have maps of one size; got {list(high.codes.shape[1:3])} and "
            f"{list(low.codes.shape[1:3])}; use images of one size."
        )
    return concept_of_means(dictionary, high.means(), low.means(), reader=reader, count=count)


@torch.no_grad()
def concept_of_means(
    dictionary: Dictionary, high: Tensor, low: Tensor, *, reader: Tensor | None = None, count: int = 64
) -> Concept:
    """Make a concept from the mean codes [kinds, height, width, n_features] with it (high) and without (low).

    >>> from comfy_revelio.dictionary import Activation
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
    >>> high, low = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    >>> concept = concept_of_means(sae, high, low, count=1)
    >>> concept.features, concept.amount.flatten().tolist()
    ((1,), [3.0])
    """
    W_dec = dictionary.directions(range(dictionary.n_features))
    high, low = high.to(W_dec.device), low.to(W_dec.device)
    change = (high - low).flatten(0, 2)
    carried = (change * ((change @ W_dec) @ W_dec.T)).sum(dim=0)
    features = carried.argsort(descending=True, stable=True)[:count]
    high, low = (side[..., features].permute(0, 3, 1, 2) for side in (high, low))
    share = ((high - low) / (high + _EPS)).clamp(0, 1)  # the part of each code that is due to the concept
    reader = single_kind_reader(dictionary.d_model) if reader is None else reader
    return Concept(tuple(features.tolist()), (high - low).cpu(), share.cpu(), reader.cpu())


def concept_of_runs(
    dictionary: Dictionary, with_it: Trace, without: Trace, *, role: str = "cond", count: int = 64
) -> tuple[Concept, str]:
    """Return the concept in which two runs differ, and the hook point where the dictionary recorded both.

    Codes are averaged over images, video frames and the steps that both runs recorded; all images count as
    one kind. Best are several images per run, from equal seeds, whose prompts differ in the concept only.
    """
    hook_point = _hook_point_of(dictionary, with_it)
    if hook_point not in _recorded_with(dictionary, without):
        raise RevelioError(
            f"The run without the concept has no record of {hook_point}; record both runs with the same SAEs."
        )
    check_same_steps(with_it, without)
    frames, others = (
        {frame.step: frame for frame in trace.steps(hook_point, role)} for trace in (with_it, without)
    )
    steps = [step for step in frames if step in others]
    if not steps:
        raise RevelioError(f"The two runs recorded no step of {hook_point} in common; record the same steps.")
    for step in steps:
        (height, width), (other_height, other_width) = (side[step].grid[-2:] for side in (frames, others))
        if (height, width) != (other_height, other_width):
            raise RevelioError(
                f"The two runs have maps of {height} x {width} and {other_height} x {other_width}; generate "
                "both at the same image size."
            )
    smallest = tuple(min(FINEST, *(frames[step].grid[side] for step in steps)) for side in (-2, -1))
    high, low = (_mean_codes([side[step] for step in steps], *smallest) for side in (frames, others))
    if torch.equal(high, low):
        raise RevelioError(
            "The two runs do not differ; use prompts with the concept for one, and without it for the other."
        )
    return concept_of_means(dictionary, high, low, count=count), hook_point


def _recorded_with(dictionary: Dictionary, trace: Trace) -> list[str]:
    """Return the hook points of a trace that were recorded with the dictionary."""
    trace.hook_point()  # raises when the trace is empty
    return trace.hook_points_of(dictionary)


def _hook_point_of(dictionary: Dictionary, trace: Trace) -> str:
    if found := _recorded_with(dictionary, trace):
        return found[0]
    raise RevelioError(
        f"This SAE (of {dictionary.hook_point or 'an unnamed hook point'}) recorded nothing in this trace; "
        f"connect the SAE that recorded {' or '.join(trace.hook_points)}."
    )


def _mean_codes(frames: Sequence[Frame], height: int, width: int) -> Tensor:
    """Return the mean code in each of height x width cells: float32 [1, height, width, n_features].

    The frames' grids may differ, as some nodes shrink the first steps, but none is below height x width.
    """
    n = frames[0].codes.n_features
    sums, tokens = torch.zeros(height * width * n), torch.zeros(height * width)
    for frame in frames:
        full_height, full_width = frame.grid[-2:]
        rows = torch.arange(full_height) * height // full_height
        columns = torch.arange(full_width) * width // full_width
        cell = (rows[:, None] * width + columns).flatten()
        items, count = frame.codes.shape
        cells = cell.repeat(count // len(cell))  # repeated for each frame of a video
        where = cells[:, None] * n + frame.codes.indices.cpu()
        sums.index_add_(0, where.flatten(), frame.codes.values.float().cpu().flatten())
        tokens += items * torch.bincount(cells, minlength=height * width)
    return (sums.view(-1, n) / tokens[:, None]).view(1, height, width, n)


def codes_on_grid(dictionary: Dictionary, maps: Tensor) -> Tensor:
    """Encode activations [n, height, width, d_model] into dense codes: float32 [n, h, w, n_features].

    To save memory, the codes are averaged to at most FINEST cells a side; a concept needs no finer maps.
    """
    height, width = (min(FINEST, side) for side in maps.shape[1:3])
    device = dictionary.W_enc.device
    parts = [dictionary.encode(map_.to(device)).dense() for map_ in maps.split(1)]
    small = [adaptive_avg_pool2d(part.permute(0, 3, 1, 2), (height, width)) for part in parts]
    return torch.cat(small).permute(0, 2, 3, 1)


@dataclass
class _Sums:
    """Sums of codes for each kind of image."""

    codes: Tensor
    """[kinds, height, width, n_features]"""
    counts: Tensor
    """[kinds]: number of images."""

    def means(self) -> Tensor:
        """Return each kind's mean code; with few images, it is close to the mean over all kinds (_PRIOR)."""
        overall = self.codes.sum(dim=0) / self.counts.sum()
        weights = self.counts[:, None, None, None].to(self.codes)
        return (self.codes + _PRIOR * overall) / (weights + _PRIOR)


def _sums(dictionary: Dictionary, parts: Iterable[Tensor], reader: Tensor) -> _Sums:
    total: _Sums | None = None
    for maps in parts:
        kinds = image_kinds(maps.float().mean(dim=(1, 2)), reader.to(maps.device))
        for map_, kind in zip(maps.split(1), kinds.tolist(), strict=True):
            codes = codes_on_grid(dictionary, map_)[0]
            if total is None:
                total = _Sums(codes.new_zeros(len(reader), *codes.shape), torch.zeros(len(reader)))
            total.codes[kind] += codes
            total.counts[kind] += 1
    if total is None:
        raise RevelioError("Images with or without the concept are missing; give at least one of each.")
    return total
