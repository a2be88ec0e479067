"""Turn captions into token ids of the small vocabulary that they use.

The tokenizer is CLIP's own (49,408 tokens), read from ComfyUI's folder. Training uses only the few hundred
tokens that occur; all others share one embedding, which learns to mean "unknown word".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comfy_revelio.errors import RevelioError
from comfy_revelio.host.mini import config

UNKNOWN = 0
"""The id in the small vocabulary that all unknown tokens share."""


def tokenizer_folder() -> Path:
    """Return the folder in ComfyUI (COMFYUI_PATH) that contains CLIP's `vocab.json` and `merges.txt`."""
    root = os.environ.get("COMFYUI_PATH")
    folder = Path(root or "") / "comfy" / "sd1_tokenizer"
    if not root or not (folder / "vocab.json").is_file():
        raise RevelioError(
            "CLIP's tokenizer was not found: set COMFYUI_PATH to the folder with comfy/sd1_tokenizer."
        )
    return folder


def load_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(tokenizer_folder()))


def tokenize(tokenizer: Any, captions: Sequence[str]) -> np.ndarray:
    """Convert captions to CLIP token ids [n, 77] uint16, padded with the end token as in ComfyUI for SD1."""
    rows = tokenizer(list(captions), padding="max_length", truncation=True, max_length=config.CONTEXT_TOKENS)[
        "input_ids"
    ]
    ids = np.asarray(rows, dtype=np.int64)
    if (ids[:, 0] != config.BOS_TOKEN).any() or (ids == config.EOS_TOKEN).sum(axis=1).min() < 1:
        raise RevelioError(
            "This version of transformers does not read CLIP's tokenizer correctly: install another version."
        )
    after_end = np.cumsum(ids == config.EOS_TOKEN, axis=1) > 0
    return np.where(after_end, config.EOS_TOKEN, ids).astype(np.uint16)


def small_vocabulary(ids: np.ndarray) -> np.ndarray:
    """Return the sorted CLIP ids [v] of the tokens that occur in `ids`; entry i gets the small id i + 1."""
    return np.unique(np.append(ids, [config.BOS_TOKEN, config.EOS_TOKEN])).astype(np.int64)


def to_small(ids: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """Convert CLIP ids to ids in the small vocabulary, or UNKNOWN if it lacks them; same shape, int16."""
    table = np.full(config.VOCABULARY, UNKNOWN, dtype=np.int16)
    table[vocabulary] = np.arange(1, len(vocabulary) + 1, dtype=np.int16)
    return table[ids]
