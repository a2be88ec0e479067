"""Check that a file contains exactly the tensors of a layout, with shapes and types that fit together."""

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
_LARGEST = 2**20  # more features, or a larger width, than any published dictionary has


@dataclass(frozen=True)
class FileLayout:
    """One layout of a checkpoint file."""

    of: Callable[[Content], str]
    """Function from a config to the name of the layout, which becomes source_format."""
    matches: Callable[[Content, Content], bool]
    """Function from (content, config) to whether the file has this layout."""
    read: Callable[[Source, Content], Dictionary]


def require_tensors(
    source: Source,
    found: Any,
    required: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    *,
    finite: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Return the tensors as float32; raise RevelioError if any is missing, unknown or of a wrong shape.

    required, optional: name -> shape, with one letter per dimension ("nd"). A letter has the same size in all
    shapes; "" is a single number. The prefix "int " means whole numbers, which keep their type.
    finite: names of the tensors that must not contain NaN or infinity; by default all tensors.
    """
    if not isinstance(found, Mapping):
        raise source.refuse("its tensors must be in a dict.")
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
            kind = str(tensor.dtype).removeprefix("torch.") if isinstance(tensor, Tensor) else "not a tensor"
            raise source.refuse(
                f"{name} is {kind}, but must be {'whole' if whole_numbers else 'floating-point'} numbers."
            )
        if tensor.ndim == 1 and not letters and len(tensor) == 1:
            tensor = tensor[0]
        if tensor.ndim != len(letters):
            raise source.refuse(
                f"{name} has the shape {list(tensor.shape)}, but must have {len(letters)} dimensions."
            )
        for letter, size in zip(letters, tensor.shape, strict=True):
            if sizes.setdefault(letter, size) != size or not 0 < size <= _LARGEST:
                raise source.refuse(
                    f"{name} has the shape {list(tensor.shape)}, which does not fit the other tensors."
                )
        if not whole_numbers:
            tensor = tensor.float()
            if (finite is None or name in finite) and not bool(tensor.isfinite().all()):
                raise source.refuse(f"{name} contains numbers that are not finite.")
        result[name] = tensor
    return result


def require_int(source: Source, settings: Content, name: str) -> int:
    """Return the entry `name` of a config; raise RevelioError unless the entry is a whole number above 0."""
    value = settings.get(name)
    if type(value) is not int or value < 1:
        raise source.refuse(f"its config must give {name} as a whole number from 1, not {value!r}.")
    return value


def unit_decoder(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale decoder rows to length 1 without changing reconstructions, so that codes have the output's units.

    Takes and returns W_enc [n, d], b_enc [n] and W_dec [n, d]. The length of a decoder row can move to the
    encoder, because ReLU(c h) = c ReLU(h) for c > 0.

    >>> W_enc, b_enc, W_dec = unit_decoder(torch.ones(1, 1), torch.ones(1), torch.full((1, 1), 2.0))
    >>> W_enc.tolist(), b_enc.tolist(), W_dec.tolist()
    ([[2.0]], [2.0], [[1.0]])
    """
    norms = W_dec.double().norm(dim=1)
    safe = norms.clamp(min=torch.finfo(torch.float32).tiny)
    return (
        (W_enc.double() * norms[:, None]).float(),
        (b_enc.double() * norms).float(),
        (W_dec.double() / safe[:, None]).float().contiguous(),
    )


def reject_extra_keys(source: Source, content: Content, *names: str) -> None:
    """Raise RevelioError if the content has entries other than `names`."""
    extra = sorted(set(map(str, content)) - set(names))
    if extra:
        raise source.refuse(f"it has the unknown entries {', '.join(extra[:6])}.")


def require_same_size(source: Source, W_enc: Tensor, *, d_in: Any, n: Any) -> None:
    """Raise RevelioError if the config's sizes d_in and n (None if absent) differ from W_enc's [n, d]."""
    for what, given, found in (("width", d_in, W_enc.shape[1]), ("number of features", n, W_enc.shape[0])):
        if given is not None and given != found:
            raise source.refuse(f"its config gives a {what} of {given!r}, but its weights have {found}.")
