"""Orders and choices that depend on a seed alone: the same on any machine, and for any number of processes.

Any of them can be made without those before it, which a random generator could not do.
"""

from __future__ import annotations

import numpy as np


def seeded_order(n: int, *keys: int) -> np.ndarray:
    """The numbers below n in an order that depends on the keys alone: int64 [n].

    >>> seeded_order(6, 0, 1).tolist()
    [0, 4, 5, 2, 1, 3]
    """
    return np.argsort(seeded_hash(np.arange(n), *keys), kind="stable")


def seeded_hash(numbers: np.ndarray, *keys: int) -> np.ndarray:
    """SplitMix64 (Steele et al., OOPSLA 2014) of numbers int64 [n] under some keys: uint64 [n]."""
    key = 0
    for part in keys:
        key = int(_split_mix(np.array([part & (2**64 - 1)], np.uint64), key)[0])
    return _split_mix(numbers.astype(np.uint64), key)


def _split_mix(numbers: np.ndarray, key: int) -> np.ndarray:
    z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
