"""Find the hook point that a user means, and the module that belongs to a hook point."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import RevelioError
from . import text_encoders as text
from . import transformers, unet
from .point import HookPoint, Stage
from .token_layout import TokenLayout

if TYPE_CHECKING:
    from torch.nn import Module

_CONTAINERS = ("input_blocks", "middle_block", "output_blocks")
_PREFIX = re.compile(r"^(?:model\.)?(?:diffusion_model\.)?(?:unet\.|transformer\.(?!$))?")
# Other projects' suffixes for the streams of a block -> our suffix, which is empty for the image.
_STREAM_ENDINGS = (
    (re.compile(r"\.(?:img|image|image_output)$"), ""),
    (re.compile(r"\.(?:text|text_output)$"), ".txt"),
)


def list_points(diffusion_model: Module) -> list[HookPoint]:
    """List all hook points of a diffusion model in the order in which the model computes them.

    In a model of an unknown family, every item of a list of blocks is a hook point.
    """
    points = _points(diffusion_model)
    if not points:
        raise RevelioError(
            f"{type(diffusion_model).__name__} is not of a known family and has no lists of blocks; give a "
            "module path as hook point."
        )
    return points


def resolve_point(diffusion_model: Module, name: str) -> HookPoint:
    """Find the hook point with the given name, title, alias or module path.

    The path of any module that the model calls is allowed; it may begin with a block's alias. A prefix such
    as "unet." is ignored. Raises RevelioError with the nearest names for an unknown name, or all for "?".
    """
    wanted = _PREFIX.sub("", name.strip())
    points = _points(diffusion_model)
    if wanted == "?":
        raise RevelioError(_all_of(list_points(diffusion_model)))
    spellings = [wanted, *(pattern.sub(ending, wanted) for pattern, ending in _STREAM_ENDINGS)]
    for spelling in spellings:
        if found := _named(points, spelling):
            return found
    for path in (wanted, *_inside_alias(diffusion_model, points, wanted)):
        module = _module_at(diffusion_model, path)
        if module is None:
            continue
        if not _is_container(path, module):
            return _by_path(diffusion_model, points, path, module)
        inside = [point.name for point in points if point.name.startswith(f"{path}.")]
        raise RevelioError(
            f"Hook point {name!r} is a list of modules, which is never called itself; "
            f"choose a module in this list, such as {', '.join(inside[:4]) or f'{path}.0'}."
        )
    raise _unknown(name, points, wanted)


def resolve_text_point(text_model: Module, name: str) -> HookPoint:
    """Find the hook point of a text layer by name ("layers.2") or longer path ("encoder.layers.2")."""
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
    """Return the module of a hook point, which may come from another model of the same architecture."""
    if hook_point.stage == "text":
        layers = text.layers_of(model)
        number = text.layer_number(hook_point.name)
        module = layers[number] if number is not None and number < len(layers) else None
    else:
        module = _module_at(model, hook_point.module_path)
    if module is None:
        raise RevelioError(
            f"This {type(model).__name__} has no module {hook_point.module_path!r}; "
            "choose a hook point of this model."
        )
    return module


def _points(model: Module) -> list[HookPoint]:
    if unet.is_unet(model):
        return unet.list_points(model)
    if family := transformers.family_of(model):
        return transformers.list_points(model, family)
    return transformers.list_unknown(model)


def _named(points: list[HookPoint], wanted: str) -> HookPoint | None:
    return next(
        (point for point in points if wanted in (point.name, point.title) or wanted in point.aliases), None
    )


def _inside_alias(model: Module, points: list[HookPoint], wanted: str) -> list[str]:
    """List the module paths that `wanted` may mean if it is a block's alias and a path inside that block."""
    paths = []
    for point in points:
        for alias in (point.name, *point.aliases):
            if wanted.startswith(f"{alias}."):
                blocks = _blocks_around(model, f"{point.module_path}.")
                part = wanted.removeprefix(f"{alias}.")
                part = dict(blocks.inside).get(part, part) if blocks else part
                paths.append(f"{point.module_path}.{part}")
    return paths


def _by_path(model: Module, points: list[HookPoint], path: str, module: Module) -> HookPoint:
    """Make a hook point for any module. A module inside a block with one sequence gets the block's layout."""
    stage: Stage = "unet" if unet.is_unet(model) else ""
    found = HookPoint(path, path, (), unet.width_of(module), stage, layout=TokenLayout(exact=True))
    if stage == "unet":
        return found
    layout = transformers.guessed(model)
    blocks = _blocks_around(model, path)
    if blocks and all(stream.element == 0 for stream in blocks.streams):
        around = next(point for point in points if path.startswith(f"{point.module_path}."))
        layout = replace(around.layout, exact=len(blocks.streams) == 1)
    return replace(found, layout=layout, stream=layout.stream)


def _blocks_around(model: Module, path: str) -> transformers.Blocks | None:
    family = None if unet.is_unet(model) else transformers.family_of(model)
    lists = family.blocks if family else ()
    return next((blocks for blocks in lists if path.startswith(f"{blocks.path}.")), None)


def _module_at(model: Module, path: str) -> Module | None:
    if not path:
        return None
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _is_container(path: str, module: Module) -> bool:
    """Whether the model calls only the contents of this module: true of lists and of UNet blocks."""
    parts = path.split(".")
    depth = 1 if parts[0] == "middle_block" else 2
    return type(module).__name__ == "ModuleList" or (parts[0] in _CONTAINERS and len(parts) <= depth)


def _all_of(points: list[HookPoint]) -> str:
    """Return a readable list of hook points, with a line "title = name" for each."""
    lines = (f"{point.title} = {point.name}" for point in points)
    return "\n".join(["The hook points of this model (enter a title or a name):", *lines])


def _unknown(name: str, points: list[HookPoint], wanted: str) -> RevelioError:
    names = [spelling for point in points for spelling in (point.name, *point.aliases)]
    near = difflib.get_close_matches(wanted, names, n=4, cutoff=0.5) or [point.name for point in points[:4]]
    hint = f"nearest are {', '.join(near)}" if near else "give the path of a module of this model"
    hint += "; ? lists all" if points else ""
    if not name.strip():
        return RevelioError(f"No hook point given, and the SAE does not name one; {hint}.")
    return RevelioError(f"Unknown hook point {name!r:.120}; {hint}.")
