"""Strict reading: exactly the tensors that a layout has, of shapes and types that fit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..sources import Source

Content = Mapping[str, Any]

_FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST = 2**20  # features or width beyond any dictionary there is


@dataclass(frozen=True)
class FileLayout:
    """of(config): its name, as source_format. matches(content, config): whether it is this one."""

    of: Callable[[Content], str]
    matches: Callable[[Content, Content], bool]
    read: Callable[[Source, Content], Dictionary]


def require_tensors(
    source: Source,
    found: Any,
    required: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    *,
    finite: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Exactly the named tensors, float32, with shapes that agree; RevelioError otherwise.

    A shape is spelt with one letter for each dimension ("nd" and "dn" must agree on n and d; "" is a single
    number); "int " before it asks for whole numbers, which keep their type. finite: the names in which NaN
    and infinity are refused; by default all.
    """
    if not isinstance(found, Mapping):
        raise source.refuse("its tensors are in no table.")
    wanted = {**required, **(optional or {})}
    missing = [name for name in required if name not in found]
    extra = sorted(str(name) for name in found if name not in wanted)
    if missing:
        raise source.refuse(f"the tensors {', '.join(missing)} are missing.")
    if extra:
        raise source.refuse(f"it has the unknown tensors {', '.join(extra[:6])}.")
    sizes: dict[str, int] = {}
    result = {}
    for name, spelt in wanted.items():
        if name not in found:
            continue
        tensor = found[name]
        whole_numbers, letters = spelt.startswith("int "), spelt.removeprefix("int ")
        if not isinstance(tensor, Tensor) or (tensor.dtype in _FLOAT_TYPES) == whole_numbers:
            kind = str(tensor.dtype).removeprefix("torch.") if isinstance(tensor, Tensor) else "no tensor"
            raise source.refuse(
                f"{name} is {kind}, not {'whole' if whole_numbers else 'floating-point'} numbers."
            )
        if tensor.ndim == 1 and not letters and len(tensor) == 1:
            tensor = tensor[0]
        if tensor.ndim != len(letters):
            raise source.refuse(
                f"{name} has the shape {list(tensor.shape)}, but {len(letters)} dimensions belong."
            )
        for letter, size in zip(letters, tensor.shape, strict=True):
            if sizes.setdefault(letter, size) != size or not 0 < size <= _LARGEST:
                raise source.refuse(
                    f"{name} has the shape {list(tensor.shape)}, which does not fit its other tensors."
                )
        if not whole_numbers:
            tensor = tensor.float()
            if (finite is None or name in finite) and not bool(tensor.isfinite().all()):
                raise source.refuse(f"{name} holds numbers that are not finite.")
        result[name] = tensor
    return result


def require_int(source: Source, settings: Content, name: str) -> int:
    """A whole number above 0 of a config; RevelioError otherwise."""
    value = settings.get(name)
    if type(value) is not int or value < 1:
        raise source.refuse(f"its config should say {name} as a whole number from 1, not {value!r}.")
    return value


def unit_decoder(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same reconstruction with decoder rows of length 1: codes are in units of the output."""
    norms = W_dec.double().norm(dim=1)
    safe = norms.clamp(min=torch.finfo(torch.float32).tiny)
    return (
        (W_enc.double() * norms[:, None]).float(),
        (b_enc.double() * norms).float(),
        (W_dec.double() / safe[:, None]).float().contiguous(),
    )


def reject_extra_keys(source: Source, content: Content, *names: str) -> None:
    """Refuse entries besides these."""
    extra = sorted(set(map(str, content)) - set(names))
    if extra:
        raise source.refuse(f"it has the unknown entries {', '.join(extra[:6])}.")


def require_same_size(source: Source, W_enc: Tensor, *, d_in: Any, n: Any) -> None:
    """The sizes that a config names must be those of the weights."""
    for what, said, is_ in (("width", d_in, W_enc.shape[1]), ("number of features", n, W_enc.shape[0])):
        if said is not None and said != is_:
            raise source.refuse(f"its config says a {what} of {said!r}, but its weights have {is_}.")
