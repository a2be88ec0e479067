"""Load Revelio Mini's text encoder into ComfyUI's CLIP class."""

from __future__ import annotations

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch

from ..comfy_types import Clip
from . import config
from .random_weights import fill_with_random_weights
from .weights import load_strictly


def build_text_encoder(tensors: dict[str, torch.Tensor] | None) -> Clip:
    """Return a ComfyUI CLIP with these weights, or with random weights if `tensors` is None."""
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    options = {"clip_l_model_config": dict(config.TEXT), "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, model_options=options)
    transformer = clip.cond_stage_model.clip_l.transformer
    if tensors is None:
        fill_with_random_weights(transformer)
    else:
        tensors = dict(tensors)
        token_ids = tensors.pop("token_ids")
        few = tensors.pop("embeddings.token_embedding.weight")
        # tokens that never occurred in training all get row 0, the embedding of the unknown word
        full = few[:1].repeat(config.VOCABULARY, 1)
        full[token_ids] = few[1:]
        renamed = {f"text_model.{name}": value for name, value in tensors.items()}
        renamed["text_model.embeddings.token_embedding.weight"] = full
        # ComfyUI's class requires CLIP's final projection, although SD-type models do not use it
        renamed["text_projection.weight"] = torch.eye(full.shape[1])
        load_strictly(transformer, renamed, "text encoder")
    return clip
