"""Strengths to compare side by side."""

from __future__ import annotations

import math

from ..errors import RevelioError

MOST = 64


def strengths(first: float, last: float, count: int, values: str = "") -> list[float]:
    """Return `count` evenly spaced strengths from first to last, or the comma-separated ones in `values`.

    Evenly spaced strengths are rounded to 6 decimals, so that a 0 among them is exactly 0.

    >>> strengths(-2.0, 2.0, 3), strengths(0.0, 0.0, 1, "-4, 2.5")
    ([-2.0, 0.0, 2.0], [-4.0, 2.5])
    """
    if values.strip():
        row = [
            _number(part) for part in values.replace(";", ",").replace("\n", ",").split(",") if part.strip()
        ]
    elif count == 1:
        row = [first]
    else:
        row = [round(first + (last - first) * step / (count - 1), 6) for step in range(count)]
    if not 1 <= len(row) <= MOST:
        advice = "write fewer" if row else "write at least one, such as -4, 0, 2.5"
        raise RevelioError(f"A sweep takes from 1 to {MOST} strengths, not {len(row)}; {advice}.")
    if not all(math.isfinite(strength) for strength in row):
        raise RevelioError(f"The strengths of a sweep must be finite numbers, not {first} and {last}.")
    return [strength + 0.0 for strength in row]  # no -0.0


def strength_label(strength: float) -> str:
    """Return a caption for a strength, with a real minus sign.

    >>> strength_label(-2.0)
    'strength \u22122'
    """
    return f"strength {strength:g}".replace("-", "−")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RevelioError(
            f"{text.strip()!r} is not a strength; write numbers separated by commas: -4, 0, 2.5."
        )
    return value
