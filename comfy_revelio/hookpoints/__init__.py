"""Names for the places in a model where activations live, and how tokens lie there."""

from .point import HookPoint
from .resolve import list_points as list
from .resolve import module_of
from .resolve import resolve_point as resolve
from .resolve import resolve_text_point as resolve_text
from .text_encoders import list_points as list_text
from .token_layout import Layout, Place, place, token_count

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
