"""Pseudo-random orders and hashes that depend only on a seed, not on the machine or the number of processes.

Unlike the numbers from a random generator, each number can be computed without the ones before.
"""

from __future__ import annotations

import numpy as np


def seeded_order(n: int, *keys: int) -> np.ndarray:
    """Return the numbers 0 to n - 1 in a pseudo-random order that depends only on the keys: int64 [n].

    >>> seeded_order(6, 0, 1).tolist()
    [0, 4, 5, 2, 1, 3]
    """
    return np.argsort(seeded_hash(np.arange(n), *keys), kind="stable")


def seeded_hash(numbers: np.ndarray, *keys: int) -> np.ndarray:
    """Hash numbers int64 [n] with SplitMix64 (Steele et al., OOPSLA 2014), seeded by the keys: uint64 [n]."""
    key = 0
    for part in keys:
        key = int(_split_mix(np.array([part & (2**64 - 1)], np.uint64), key)[0])
    return _split_mix(numbers.astype(np.uint64), key)


def _split_mix(numbers: np.ndarray, key: int) -> np.ndarray:
    z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
