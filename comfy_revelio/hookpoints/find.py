"""From a name that a user typed to a hook point, and from a hook point to its module."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ..errors import RevelioError
from . import text, unet
from .point import HookPoint

if TYPE_CHECKING:
    from torch.nn import Module

_CONTAINERS = ("input_blocks", "middle_block", "output_blocks")


def resolve_unet_point(diffusion_model: Module, name: str) -> HookPoint:
    """The hook point called `name`: its name, an alias ("unet." allowed before it), or the path of
    any module that the model calls.

    Raises RevelioError with the nearest valid names when there is none.
    """
    wanted = name.strip()
    for prefix in ("diffusion_model.", "unet."):
        wanted = wanted.removeprefix(prefix)
    points = unet.list_points(diffusion_model) if unet.is_unet(diffusion_model) else []
    found = _named(points, wanted)
    if found:
        return found
    if module := _module_at(diffusion_model, wanted):
        if not _is_container(wanted, module):
            return HookPoint(wanted, wanted, (), unet.width_of(module), "unet")
        wanted_inside = [point.name for point in points if point.name.startswith(f"{wanted}.")]
        raise RevelioError(
            f"Hook point {name!r} is a list of modules that is never called itself; "
            f"name one inside it, such as {', '.join(wanted_inside[:4]) or f'{wanted}.0'}."
        )
    raise _unknown(name, points, wanted)


def resolve_text_point(text_model: Module, name: str) -> HookPoint:
    """The layer called `name`, as "layers.2" or a longer path that ends so ("text_encoder...").

    Raises RevelioError with the valid names when there is none.
    """
    points = text.list_points(text_model)
    number = text.layer_number(name.strip())
    if number is not None and number < len(points):
        return points[number]
    raise RevelioError(
        f"Unknown text layer {name!r}; this text encoder has {points[0].name} to {points[-1].name}."
        if points
        else f"Unknown text layer {name!r}; this text encoder has no layers."
    )


def module_of(model: Module, hook_point: HookPoint) -> Module:
    """The module of a hook point that was resolved on this model (or one built alike)."""
    if hook_point.stage == "text":
        layers = text.layers_of(model)
        number = text.layer_number(hook_point.name)
        module = layers[number] if number is not None and number < len(layers) else None
    else:
        module = _module_at(model, hook_point.name)
    if module is None:
        raise RevelioError(
            f"This {type(model).__name__} has no module {hook_point.name!r}; "
            "choose a hook point of this model."
        )
    return module


def _named(points: list[HookPoint], wanted: str) -> HookPoint | None:
    return next((point for point in points if wanted == point.name or wanted in point.aliases), None)


def _module_at(model: Module, path: str) -> Module | None:
    if not path:
        return None
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _is_container(path: str, module: Module) -> bool:
    """Lists are never called; nor are the blocks of a UNet, which the model walks through itself."""
    parts = path.split(".")
    depth = 1 if parts[0] == "middle_block" else 2
    return type(module).__name__ == "ModuleList" or (parts[0] in _CONTAINERS and len(parts) <= depth)


def _unknown(name: str, points: list[HookPoint], wanted: str) -> RevelioError:
    names = [spelling for point in points for spelling in (point.name, *point.aliases)]
    near = difflib.get_close_matches(wanted, names, n=4, cutoff=0.5) or [point.name for point in points[:4]]
    hint = f"nearest are {', '.join(near)}" if near else "give the path of a module of this model"
    return RevelioError(f"Unknown hook point {name!r}; {hint}.")
