"""Read the Flux SAEs of fae (arXiv 2505.24360), which were published as Orbax (JAX) checkpoints.

`python -m comfy_revelio convert` converts such a checkpoint to the native layout. Only this conversion needs
the package orbax-checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RevelioError
from .activations import Activation
from .dictionary import Dictionary
from .input_transform import InputTransform
from .metadata import Provenance

CLIP = 10.0
_MARKS = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
_NAME = re.compile(r"sae_(double|single)_l(\d+)_img(?:-k(\d+))?")
_USUAL_K = 64
_TENSORS = {
    "sae_params": ("W_enc", "W_dec", "b_pre", "b_post"),
    "info": ("feature_means", "feature_square_means", "whitening_matrix"),
}


def is_orbax(path: Path) -> bool:
    """Whether a folder is an Orbax checkpoint or contains an Orbax checkpoint named `default`."""
    folders = (path, path / "default")
    return path.is_dir() and any((folder / mark).exists() for folder in folders for mark in _MARKS)


def read_orbax(path: Path, k: int | None = None) -> Dictionary:
    """Read the dictionary in an Orbax checkpoint folder. By default k is the number in the path, else 64."""
    try:
        import orbax.checkpoint as orbax
    except ImportError:
        raise RevelioError(
            f"{path} is an Orbax checkpoint; to convert it, install orbax-checkpoint once "
            "(pip install orbax-checkpoint)."
        ) from None
    folder = path / "default" if (path / "default").is_dir() else path
    # Restore only the weights: the optimizer state and the averages are three times as large. Restore NumPy
    # arrays: otherwise Orbax would ask for the devices on which the weights were trained.
    wanted = {group: dict.fromkeys(names, 0) for group, names in _TENSORS.items()}
    as_numpy = {
        group: {name: orbax.RestoreArgs(restore_type=np.ndarray) for name in names}
        for group, names in _TENSORS.items()
    }
    try:
        content = orbax.PyTreeCheckpointer().restore(
            folder.absolute(), item=wanted, restore_args=as_numpy, transforms={}
        )
    except Exception as problem:  # orbax raises whatever its parts raise
        raise RevelioError(f"{path} cannot be read as an Orbax checkpoint of fae ({problem}).") from None
    named = next((m for part in path.absolute().parts if (m := _NAME.search(part))), None)
    dictionary = from_parameters(
        content["sae_params"], content["info"], k or int((named and named[3]) or _USUAL_K)
    )
    if named is not None:
        kind = "transformer_blocks" if named[1] == "double" else "single_transformer_blocks"
        dictionary.hook_point = f"{kind}.{named[2]}"
    return dictionary


def from_parameters(params: Mapping[str, Any], info: Mapping[str, Any], k: int) -> Dictionary:
    """Make a dictionary from fae's parameters; fold fae's standardisation into the weights where exact.

    fae computes x_n = clip((x WM - mean) / std, -10, 10), e = (x_n - b_post + b_pre) W_enc, z = the k largest
    e (signed), and y = ((z W_dec + b_post) std + mean) WM^T.
    params: b_pre [d], W_enc [d, n], W_dec [n, d], b_post [d].
    info: feature_means [d], feature_square_means [d], whitening_matrix WM [d, d].
    """
    try:
        W_enc, W_dec, b_pre, b_post = (_double(params[name]) for name in _TENSORS["sae_params"])
        mean, squares, WM = (_double(info[name]) for name in _TENSORS["info"])
    except KeyError as missing:
        raise RevelioError(f"This checkpoint has no {missing.args[0]}, so it is not an SAE of fae.") from None
    std = (squares - mean.square()).clamp(min=1e-6).sqrt()
    return Dictionary(
        W_enc.T.float().contiguous(),
        torch.zeros(W_enc.shape[1]),
        ((W_dec * std) @ WM.T).float(),
        (b_post - b_pre).float(),
        ((b_post * std + mean) @ WM.T).float(),
        Activation("topk_signed", k),
        inputs=InputTransform(whitening=(WM / std).float(), whitening_bias=(-mean / std).float(), clip=CLIP),
        provenance=Provenance(source_format="fae"),
    )


def _double(array: Any) -> Tensor:
    # through NumPy, because the whitening matrix is in JAX's bfloat16, which torch does not read
    return torch.from_numpy(np.asarray(array).astype(np.float64))
