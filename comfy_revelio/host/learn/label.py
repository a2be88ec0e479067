"""Label Features: find the top examples of each feature, label the feature, and save the feature index."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from torch import Tensor

from ...analysis.index import FeatureIndex, write_index
from ...analysis.index.clip import clip_labels
from ...analysis.index.endpoint import Endpoint
from ...analysis.labelling import index_of_host, label_by_endpoint, words_of
from ...errors import RevelioError
from ...render.example_sheet import example_sheet, label_table
from ...training.harvest import SamplingSettings, items_of_prompts
from .. import sae_files
from ..comfy_types import Clip, Model, Vae
from ..sae_files import SAEHandle
from .comfy_host import ComfyHost

URL, MODEL, KEY = "REVELIO_LABEL_URL", "REVELIO_LABEL_MODEL", "REVELIO_LABEL_KEY"
"""Environment variables for the endpoint. They are not inputs of the node, because otherwise a stranger's
workflow could decide where images and a key are sent."""
MAX_ASKED = 64
"""The node asks the endpoint to label at most this many features."""
_CLIP_FOLDERS = ("clip_vision", "text_encoders", "clip")
_NAME = re.compile(r"[\w\-. ]{1,120}")


def label_features(
    model: Model,
    clip: Clip,
    vae: Vae,
    sae: SAEHandle,
    prompts: Sequence[str],
    *,
    by: str,
    words: Sequence[str],
    clip_model: str,
    pictures: int,
    examples: int,
    seed: int,
    height: int,
    width: int,
    steps: int,
    cfg: float,
) -> tuple[SAEHandle, Tensor, str]:
    """Return (the labelled SAE, a figure of examples, a report); save the index at `index_target`."""
    if not prompts:
        raise RevelioError("There are no prompts; write some, one per line.")
    target = sae_files.index_target(sae.name)
    endpoint = _endpoint() if by == "endpoint" else None
    folder = _clip_folder(clip_model) if by == "clip" else None
    host = ComfyHost(model, clip, vae, "this model", SamplingSettings(height, width, steps, cfg))
    items = items_of_prompts(prompts, seed, pictures)
    bar = comfy.utils.ProgressBar(len(items))

    def progress(done: int, count: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, count)

    index = index_of_host(sae.dictionary, host, items, host.images, top=examples, progress=progress)
    if folder is not None:
        index = replace(index, labels=clip_labels(index, folder, words or words_of(prompts), progress))
    if endpoint is not None:
        index = label_by_endpoint(index, endpoint, MAX_ASKED, progress)
    write_index(index, target)
    folder_paths.filename_list_cache.clear()
    found = sae_files.load(sae.name, sae.dictionary.hook_point, sae.dictionary.captured)
    return found, example_sheet(index), _report(index, target)


def _report(index: FeatureIndex, target: Path) -> str:
    used = int((index.starts[1:] > index.starts[:-1]).sum())
    return (
        f"{used} of {index.n_features} features fired in {index.items} images, {len(index.labels)} have "
        f"labels; saved in {target.name}.\n\n{label_table(index)}"
    )


def _endpoint() -> Endpoint:
    if not os.environ.get(URL):
        raise RevelioError(
            f"No endpoint is set: set the environment variables {URL} and {MODEL} (and {KEY} if it needs a "
            "key) before ComfyUI starts, or use the label command."
        )
    return Endpoint(os.environ[URL], os.environ.get(MODEL, ""), os.environ.get(KEY, ""))


def _clip_folder(name: str) -> Path:
    """Return the folder called `name` in ComfyUI's folders for CLIP models; refuse names that are paths."""
    name = name.strip()
    if _NAME.fullmatch(name) and name.strip("."):
        for kind in _CLIP_FOLDERS:
            for root in folder_paths.get_folder_paths(kind):
                if (Path(root) / name / "config.json").is_file():
                    return Path(root) / name
    raise RevelioError(
        f"There is no CLIP model {name!r}: put the folder of a transformers CLIP model into "
        "models/clip_vision and enter the folder's name."
    )
