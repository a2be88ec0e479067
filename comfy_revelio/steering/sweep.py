"""A row of strengths to compare."""

from __future__ import annotations

import math

from ..errors import RevelioError

MOST = 64


def strengths(first: float, last: float, count: int, values: str = "") -> list[float]:
    """`count` strengths from first to last, evenly spread; or those that `values` lists by commas.

    Evenly spread ones are rounded to 6 digits, so that a 0 among them is exactly 0.
    Raises RevelioError when one is no finite number, or when there are none or more than 64.
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
        do = "write fewer" if row else "write at least one, such as -4, 0, 2.5"
        raise RevelioError(f"A sweep takes from 1 to {MOST} strengths, not {len(row)}; {do}.")
    if not all(math.isfinite(strength) for strength in row):
        raise RevelioError(f"The strengths of a sweep must be finite numbers, not {first} and {last}.")
    return [strength + 0.0 for strength in row]  # no -0.0


def strength_label(strength: float) -> str:
    """ "strength -2", with a real minus sign."""
    return f"strength {strength:g}".replace("-", "−")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RevelioError(f"{text.strip()!r} is no strength; write numbers separated by commas: -4, 0, 2.5.")
    return value
