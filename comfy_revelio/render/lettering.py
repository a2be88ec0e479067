"""Text in figures: the bundled typeface, measuring and wrapping text, and formatting numbers."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

# Inter, reduced to Latin, Greek, Cyrillic and common signs (fonts/LICENSE.txt). Pillow's built-in font lacks
# sigma and accents, and there is no font that every user's system has.
_FONTS = Path(__file__).parent / "fonts"

Font = ImageFont.FreeTypeFont


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> Font:
    """Return the figures' typeface at a size in pixels."""
    name = "Inter-SemiBold.ttf" if bold else "Inter-Regular.ttf"
    return ImageFont.truetype(str(_FONTS / name), size, layout_engine=ImageFont.Layout.BASIC)


def width(text: str, face: Font) -> int:
    """Return the width of a line of text in pixels, rounded up."""
    return math.ceil(face.getlength(text))


def line_height(face: Font) -> int:
    """Return the distance in pixels between the tops of two consecutive lines."""
    return round(face.size * 1.4)


def fitted(text: str, face: Font, limit: int) -> str:
    """Return the text, shortened with an ellipsis if it is wider than `limit` pixels."""
    if width(text, face) <= limit:
        return text
    while text and width(text + "…", face) > limit:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, face: Font, limit: int) -> list[str]:
    """Break the text between words into lines of at most `limit` pixels; shorten words that are longer."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, face) <= limit:
            lines[-1] = longer
        else:
            lines.append(fitted(word, face, limit))
    return lines


def number(value: float) -> str:
    """Format a value with up to three significant digits; use an exponent if it is very large or small."""
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
