"""Letters: the bundled typeface, measuring, wrapping, and how numbers are written."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

# Inter, cut down to Latin, Greek, Cyrillic and common signs (fonts/LICENSE.txt). Pillow's own typeface has no
# sigma and no accents, and no font is on every user's system.
_FONTS = Path(__file__).parent / "fonts"

Font = ImageFont.FreeTypeFont


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> Font:
    """The figures' typeface at a size in pixels."""
    name = "Inter-SemiBold.ttf" if bold else "Inter-Regular.ttf"
    return ImageFont.truetype(str(_FONTS / name), size, layout_engine=ImageFont.Layout.BASIC)


def width(text: str, face: Font) -> int:
    """Width of one line in pixels, rounded up."""
    return math.ceil(face.getlength(text))


def line_height(face: Font) -> int:
    """Distance in pixels between the tops of two lines."""
    return round(face.size * 1.4)


def fitted(text: str, face: Font, limit: int) -> str:
    """The text, shortened with an ellipsis where it is wider than `limit` pixels."""
    if width(text, face) <= limit:
        return text
    while text and width(text + "…", face) > limit:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, face: Font, limit: int) -> list[str]:
    """The text in lines of at most `limit` pixels, broken between words; a word too long is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, face) <= limit:
            lines[-1] = longer
        else:
            lines.append(fitted(word, face, limit))
    return lines


def number(value: float) -> str:
    """A value in at most three significant digits and without exponents where that is readable."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "?"
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        return f"{value:.1e}".replace("-", "−", 1) if value < 0 else f"{value:.1e}"
    decimals = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}".replace("-", "−")
    return text.rstrip("0").rstrip(".") if decimals else text
