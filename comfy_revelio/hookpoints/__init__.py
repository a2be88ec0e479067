"""Hook points: the layers where activations are read, with their names and their arrangement of tokens."""

from .point import HookPoint
from .resolve import list_points as list
from .resolve import module_of
from .resolve import resolve_point as resolve
from .resolve import resolve_text_point as resolve_text
from .text_encoders import list_points as list_text
from .token_layout import TokenGrid, TokenLayout, locate_tokens, token_count

__all__ = [
    "HookPoint",
    "TokenGrid",
    "TokenLayout",
    "list",
    "list_text",
    "locate_tokens",
    "module_of",
    "resolve",
    "resolve_text",
    "token_count",
]
