"""Label features with a CLIP model on the user's disk: find the word most similar to a feature's crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import RevelioError
from .feature_index import LONGEST_LABEL, FeatureIndex, Label

MIN_SCORE = 2.0
"""Minimum score of a word that becomes a label; `clip_labels` defines the score."""
_AT_ONCE = 64
_TEMPLATE = "a picture of {}"


@torch.no_grad()
def clip_labels(
    index: FeatureIndex,
    folder: Path,
    words: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, Label]:
    """Return {feature: label}: the word that scores highest for the feature's crops, if it reaches MIN_SCORE.

    folder: a CLIP model as transformers saves it, with weights in safetensors. The similarity of a feature to
    a word is the mean cosine between the feature's crops and the word. The score is how many standard
    deviations this similarity is above the word's mean similarity to all features.
    """
    if index.crops is None or not len(index.crops):
        raise RevelioError("This index has no crops for CLIP to compare; build it with images.")
    words = list(dict.fromkeys(word.strip()[:LONGEST_LABEL] for word in words if word.strip()))
    if not words:
        raise RevelioError("CLIP needs words to choose from; give a list, one word per line.")
    model, processor = _load(folder)
    texts = processor(text=[_TEMPLATE.format(word) for word in words], return_tensors="pt", padding=True)
    word_vectors = functional.normalize(_embedding(model.get_text_features(**texts)), dim=-1)
    used = (index.starts[1:] > index.starts[:-1]).nonzero()[:, 0].tolist()
    sums = torch.zeros(len(used), len(words))
    for number, feature in enumerate(used):
        if progress is not None and number % _AT_ONCE == 0:
            progress(number, len(used))
        pixels = processor(images=list(index.crops[index.examples(feature)].numpy()), return_tensors="pt")
        crops = functional.normalize(_embedding(model.get_image_features(**pixels)), dim=-1)
        sums[number] = (crops @ word_vectors.T).mean(0)
    deviation = sums.std(0) if len(used) > 1 else torch.ones(len(words))
    scores, best = ((sums - sums.mean(0)) / deviation.clamp(min=1e-6)).max(1)
    return {
        feature: Label(words[int(best[number])], round(float(scores[number]), 3), "clip")
        for number, feature in enumerate(used)
        if scores[number] >= MIN_SCORE
    }


def _embedding(found: Any) -> Tensor:
    """Return the projected embedding, which newer versions of transformers wrap in an object."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _load(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise RevelioError(
            f"{folder} is not a CLIP model; choose a folder with config.json and model.safetensors."
        )
    try:
        from transformers import AutoProcessor, CLIPModel
    except ImportError:
        raise RevelioError("Labels by CLIP need the package transformers; install it.") from None
    try:
        local = {"local_files_only": True}
        model = CLIPModel.from_pretrained(folder, use_safetensors=True, **local).float().eval()
        return model, AutoProcessor.from_pretrained(folder, trust_remote_code=False, **local)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RevelioError(f"The CLIP model in {folder} cannot be loaded ({reason}).") from None
