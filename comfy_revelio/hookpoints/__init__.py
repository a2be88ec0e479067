"""Names for the places in a model where activations live."""

from .find import module_of
from .find import resolve_text_point as resolve_text
from .find import resolve_unet_point as resolve
from .geometry import from_tokens, to_tokens
from .point import HookPoint
from .text import list_points as list_text
from .unet import list_points as list

__all__ = [
    "HookPoint",
    "from_tokens",
    "list",
    "list_text",
    "module_of",
    "resolve",
    "resolve_text",
    "to_tokens",
]
