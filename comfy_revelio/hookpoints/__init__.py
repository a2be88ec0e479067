"""Names for the places in a model where activations live, and how tokens lie there."""

from .find import list_points as list
from .find import module_of
from .find import resolve_point as resolve
from .find import resolve_text_point as resolve_text
from .geometry import Layout, Place, place, token_count
from .point import HookPoint
from .text import list_points as list_text

__all__ = [
    "HookPoint",
    "Layout",
    "Place",
    "list",
    "list_text",
    "module_of",
    "place",
    "resolve",
    "resolve_text",
    "token_count",
]
