"""Copy the machine's result into a plain tree, with tensors in place of their descriptions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .values import MAX_ITEMS, Name, Span, Stub, View, broken, dtype_called

_MAX_DEPTH = 64


def as_tree(value: Any, leaf: Callable[[View | Span], Any]) -> Any:
    """Copy the machine's result, replacing each View and Span by the value that `leaf` returns for it.

    No container occurs twice in the copy, and its size and depth are limited, so a walk through it ends.
    """
    import torch

    left = MAX_ITEMS

    def table(items: dict[Any, Any], depth: int) -> dict[Any, Any]:
        return {key: copy(item, depth) for key, item in items.items()}

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise broken("it repeats its parts far too often")
        if depth > _MAX_DEPTH:
            raise broken("it is nested too deeply")
        kind = type(value)
        if value is None or kind in (bool, int, float, str, bytes, torch.device, torch.Size):
            return value
        if kind in (View, Span):
            return leaf(value)
        depth += 1
        if kind is list:
            return [copy(item, depth) for item in value]
        if kind is tuple:
            return tuple([copy(item, depth) for item in value])
        if kind is dict:
            return table(value, depth)
        if kind is OrderedDict:
            ordered = OrderedDict(table(value, depth))
            vars(ordered).update(table(vars(value), depth))
            return ordered
        if kind is Stub:
            return Stub(value.name, table(value.state, depth))
        dtype = dtype_called(value.text) if kind is Name else None
        if dtype is None:
            raise broken("it holds a class or a storage where a value belongs")
        return dtype

    return copy(value, 0)
