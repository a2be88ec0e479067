"""Measure how well a dictionary reconstructs activations, and compute statistics of its features.

    fvu = sum |x - x^|^2 / sum |x - mean(x)|^2        fraction of variance unexplained
    explained_variance = 1 - fvu                      0 for a dictionary that always returns the mean
    cosine = mean cosine of x - b_out and x^ - b_out
    l0 = mean number of active features per row
    dead_share = share of features that fire on no row; meaningful only for many rows

`measure` and `feature_stats` take one tensor or an iterable of tensors, of any dtype and on any device. They
process one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..dictionary import Dictionary, FeatureStats
from ..errors import RevelioError

_CHUNK_ROWS = 16384
_BUCKETS, _LAST_TIMESTEP = 5, 1000.0


@torch.no_grad()
def measure(
    dictionary: Dictionary,
    rows: Tensor | Iterable[Tensor],
    *,
    timesteps: Tensor | None = None,
    chunk_rows: int = _CHUNK_ROWS,
) -> dict[str, float]:
    """Return the metrics above for activations [..., d_model], and measured_rows, their number of rows.

    timesteps: [N], if rows is one tensor [N, d_model]; temporal dictionaries need them.

    >>> from comfy_revelio.dictionary import Activation
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("topk_relu", k=1))
    >>> metrics = measure(sae, torch.tensor([[2.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    >>> round(metrics["fvu"], 3), round(metrics["l0"], 3), metrics["dead_share"]
    (0.136, 0.667, 0.0)
    """
    d, n = dictionary.d_model, dictionary.n_features
    device = dictionary.W_enc.device
    total = torch.zeros(d, dtype=torch.float64)
    squares, cosines, error, active = 0.0, 0.0, 0.0, 0.0
    fired = torch.zeros(n, dtype=torch.bool, device=device)
    count = 0
    shift = dictionary.b_out.float()  # subtracted, because a large mean would swamp the variance
    times = iter(()) if timesteps is None else iter(timesteps.to(device).split(chunk_rows))
    for chunk in _chunks(rows, chunk_rows):
        x = chunk.reshape(-1, chunk.shape[-1]).to(device).float()
        timestep = next(times, None)
        codes = dictionary.encode(x, timestep=timestep)
        x_hat = dictionary.decode(codes, timestep=timestep) - shift
        x = x - shift
        total += x.sum(0).cpu().double()
        squares += float(x.square().sum())
        error += float((x - x_hat).square().sum())
        cosines += float(functional.cosine_similarity(x, x_hat, dim=1).sum())
        active += float((codes.values != 0).sum())
        _mark(fired, codes.indices, codes.values)
        count += len(x)
    if not count:
        raise RevelioError("There are no activations to measure the dictionary on; harvest some first.")
    variance = squares - float(total.square().sum()) / count
    fvu = error / max(variance, torch.finfo(torch.float32).tiny)
    return {
        "explained_variance": 1.0 - fvu,
        "fvu": fvu,
        "cosine": cosines / count,
        "l0": active / count,
        "dead_share": 1.0 - float(fired.float().mean()),
        "measured_rows": float(count),
    }


@torch.no_grad()
def error_by_timestep(dictionary: Dictionary, rows: Tensor, timesteps: Tensor) -> list[dict[str, float]]:
    """Split timesteps 0..1000 into five equal ranges; return the errors of the rows [N, d] in each range.

    timesteps: [N]. Each entry has the range (from, to), its number of rows, their mean squared error (mse)
    and explained_variance. Ranges without rows are omitted.
    """
    result = []
    width = _LAST_TIMESTEP / _BUCKETS
    number = (timesteps / width).long().clamp(0, _BUCKETS - 1)
    for bucket in range(_BUCKETS):
        here = number == bucket
        x, t = rows[here].to(dictionary.W_enc.device).float(), timesteps[here]
        if not len(x):
            continue
        parts = zip(x.split(_CHUNK_ROWS), t.split(_CHUNK_ROWS), strict=True)
        x_hat = torch.cat([dictionary(part, timestep=times.to(part.device)) for part, times in parts])
        mse = float((x - x_hat).square().mean())
        result.append(
            {
                "from": bucket * width,
                "to": (bucket + 1) * width,
                "rows": float(len(x)),
                "mse": mse,
                "explained_variance": 1 - mse / max(1e-30, float(x.var(dim=0, correction=0).mean())),
            }
        )
    return result


def measure_by_timestep(dictionary: Dictionary, rows: Tensor, timesteps: Tensor) -> dict[str, Any]:
    """Return the metrics of `measure`, plus by_timestep: the result of `error_by_timestep`."""
    metrics: dict[str, Any] = dict(measure(dictionary, rows, timesteps=timesteps))
    return metrics | {"by_timestep": error_by_timestep(dictionary, rows, timesteps)}


@torch.no_grad()
def feature_stats(
    dictionary: Dictionary, activations: Tensor | Iterable[Tensor], *, chunk_rows: int = _CHUNK_ROWS
) -> FeatureStats:
    """Return the mean active value, firing rate and mean map of every feature.

    activations: maps [N, H, W, d_model], all with the same H and W, or rows [N, d_model] or [N, T, d_model].
    Rows have no mean maps. The results are float32 on the dictionary's device.
    """
    n, device = dictionary.n_features, dictionary.W_enc.device
    sums, fires = torch.zeros(n, device=device), torch.zeros(n, device=device)
    map_sums: Tensor | None = None
    grid: tuple[int, ...] | None = None
    count = 0
    for chunk in _chunks(activations, chunk_rows):
        codes = dictionary.encode(chunk.to(device))
        here = tuple(codes.shape[1:]) if len(codes.shape) == 3 else ()
        if grid is not None and here != grid:
            raise RevelioError(f"All maps must have the same size, but some are {grid} and some {here}.")
        grid = here
        flat, values = codes.indices.flatten(), codes.values.flatten()
        sums.index_add_(0, flat, values)
        fires.index_add_(0, flat, (values != 0).float())
        count += codes.shape.numel()
        if grid:
            if map_sums is None:
                map_sums = torch.zeros(n, *grid, device=device)
            add_to_maps(map_sums, codes.indices, codes.values)
    if not count:
        raise RevelioError("There are no activations to measure the features on; harvest some first.")
    mean_map = None
    if map_sums is not None:
        peak = map_sums.amax((1, 2), keepdim=True)
        mean_map = torch.where(peak > 0, map_sums / peak.clamp(min=1e-20), 0.0)
    return FeatureStats(sums / fires.clamp(min=1), fires / count, mean_map)


def add_to_maps(maps: Tensor, indices: Tensor, values: Tensor) -> None:
    """Add codes [items, H, W, k] to per-feature maps [n, H, W], in place."""
    cells = maps.shape[1] * maps.shape[2]
    cell = torch.arange(cells, device=maps.device).reshape(maps.shape[1], maps.shape[2], 1)
    maps.view(-1).index_add_(0, (indices * cells + cell).flatten(), values.flatten())


def _mark(fired: Tensor, indices: Tensor, values: Tensor) -> None:
    hits = torch.zeros(len(fired), device=fired.device)
    hits.index_add_(0, indices.flatten(), (values.flatten() != 0).float())
    fired |= hits > 0


def _chunks(source: Tensor | Iterable[Tensor], chunk_rows: int) -> Iterator[Tensor]:
    for tensor in [source] if isinstance(source, Tensor) else source:
        per_item = max(1, tensor[0].numel() // tensor.shape[-1]) if len(tensor) else 1
        if len(tensor):
            yield from tensor.split(max(1, chunk_rows // per_item))
