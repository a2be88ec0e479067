"""The engine: find, draw and steer sparse features of diffusion models.

Plain Python and torch, usable without ComfyUI. Importing this package is cheap: torch is
imported only when one of the names below is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import hookpoints, steering
    from .dictionary import load_dictionary, save_dictionary
    from .errors import RevelioError
    from .trace import Trace

__all__ = ["RevelioError", "Trace", "hookpoints", "load_dictionary", "save_dictionary", "steering"]

_HOMES = {
    "RevelioError": ".errors",
    "Trace": ".trace",
    "load_dictionary": ".dictionary",
    "save_dictionary": ".dictionary",
}
_ROOMS = ("hookpoints", "steering")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
