"""Train the SAEs of Revelio Mini on what it does inside ComfyUI while it samples.

`python -m comfy_revelio.mini saes`: one run of pictures is harvested at all hook points at once; each SAE is
trained on one part of it and measured on the rest; its features are labelled by contrast between the pictures
in which the judge sees a value and those in which it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..analysis.contrast import FeaturePeaks, rank
from ..dictionary import Dictionary, save_dictionary
from ..mini import config
from ..mini.attributes import ATTRIBUTES, labels_for
from ..mini.captions import Caption, caption
from ..mini.judge import load_judge
from ..steering.concept import contrast_features
from ..training import TrainConfig, feature_stats, measure, train
from .generate import encode, sample
from .harvest import harvest
from .mini_evaluation import SAMPLING
from .mini_model import load_mini
from .text import resolve_layer, text_hidden


@dataclass(frozen=True)
class Plan:
    """One SAE of the bundle."""

    file: str
    hook_point: str
    n_features: int
    k: int
    steps: int


UNET_PLANS = (
    Plan("revelio_mini_middle", "middle_block.1", 1536, 16, 600),
    Plan("revelio_mini_up0", "output_blocks.0.1", 1536, 16, 600),
    Plan("revelio_mini_up1", "output_blocks.1.1", 1536, 16, 600),
    Plan("revelio_mini_up3", "output_blocks.3.1", 1536, 16, 600),
)
TEXT_PLAN = Plan("revelio_mini_text", "layers.1", 512, 8, 600)

FAMILY = "revelio-mini"
LABELLED = 4
"""Features kept for a label, strongest first."""
MIN_SCORE = 0.3


def train_all(
    pictures_count: int = 384,
    captions_count: int = 4000,
    *,
    out: Path = config.WEIGHTS_DIR.parent,
    device: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Harvest, train, measure, label and save every SAE; returns the figures by file name."""
    captions = _captions(max(pictures_count, captions_count))
    figures = train_unet_saes(captions[:pictures_count], out=out, device=device, say=say)
    figures[TEXT_PLAN.file] = train_text_sae(captions[:captions_count], out=out, device=device, say=say)
    return figures


def train_unet_saes(
    captions: Sequence[tuple[Caption, dict[str, int]]], *, out: Path, device: str, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """The SAEs of the UNet, over all steps of the positive prompt's half."""
    model, clip, vae = load_mini()
    judge = load_judge()
    prompts = [words.text for words, _ in captions]
    negative = encode(clip, [""])
    seen_values: list[Tensor] = []

    def generate(tapped: Any) -> None:
        for start in range(0, len(prompts), 32):
            part = prompts[start : start + 32]
            seeds = range(start, start + len(part))
            latents = sample(tapped, encode(clip, part), negative, seeds, **SAMPLING)
            seen_values.append(judge.label(vae.decode(latents).float().cpu()))
            say(f"harvested {start + len(part)} of {len(prompts)} pictures")

    maps = harvest(model, [plan.hook_point for plan in UNET_PLANS], generate)
    figures = {}
    for plan in UNET_PLANS:
        here = maps.pop(plan.hook_point)
        items = here.shape[1]
        seen, unseen = here[:, : items * 7 // 8], here[:, items * 7 // 8 :]
        dictionary = _train(seen.flatten(0, 3), plan, device)
        dictionary.figures = measure(dictionary, unseen.flatten(0, 1))
        dictionary.set_stats(feature_stats(dictionary, seen.flatten(0, 1)))
        dictionary.labels = label_by_pictures(dictionary, here, torch.cat(seen_values))
        figures[plan.file] = _save(dictionary, plan, out, say)
    return figures


def train_text_sae(
    captions: Sequence[tuple[Caption, dict[str, int]]], *, out: Path, device: str, say: Callable[[str], None]
) -> dict[str, float]:
    """The SAE of a text layer, on the captions' own tokens and a share of start, end and padding."""
    _, clip, _ = load_mini()
    width = config.TEXT["hidden_size"]
    layer = resolve_layer(clip, TEXT_PLAN.hook_point, width, TEXT_PLAN.file)
    texts = [words.text for words, _ in captions]
    hidden, keep = text_hidden(clip, texts, layer)
    padding = torch.rand(keep.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    cut = len(texts) * 7 // 8
    taken = keep | padding
    dictionary = _train(hidden[:cut][taken[:cut]], TEXT_PLAN, device)
    dictionary.figures = measure(dictionary, hidden[cut:][taken[cut:]])
    dictionary.set_stats(feature_stats(dictionary, hidden[:cut][keep[:cut]]))
    dictionary.labels = label_by_words(dictionary, hidden, keep, captions)
    return _save(dictionary, TEXT_PLAN, out, say)


def label_by_pictures(dictionary: Dictionary, maps: Tensor, values: Tensor) -> dict[str, list[int]]:
    """Features by attribute value: pictures in which the judge sees it against those in which it does not.

    maps: [steps, items, H, W, width]; values: the judge's, [items, attributes].
    """
    groups = []
    for column, (attribute, names) in enumerate(ATTRIBUTES.items()):
        for index, name in enumerate(names):
            has = (values[:, column] == index).numpy()
            if name != "none" and has.any() and not has.all():
                groups.append((_label(attribute, name), has, ~has))
    sides = [(FeaturePeaks(dictionary.n_features), FeaturePeaks(dictionary.n_features)) for _ in groups]
    for start in range(0, maps.shape[1], 16):
        part = slice(start, start + 16)
        steps = [dictionary.encode(step[part].float().flatten(1, 2)) for step in maps]
        for (_, has, lacks), (with_it, without) in zip(groups, sides, strict=True):
            for chosen, peaks in ((has, with_it), (lacks, without)):
                rows = torch.from_numpy(np.flatnonzero(chosen[part]))
                if len(rows):
                    peaks.add([codes[rows] for codes in steps])
    labels = {}
    for (label, _, _), (with_it, without) in zip(groups, sides, strict=True):
        found = rank(with_it, without, count=LABELLED, min_score=MIN_SCORE)
        if found:
            labels[label] = [one.feature for one in found]
    return labels


def _label(attribute: str, value: str) -> str:
    return value if attribute in ("glasses", "beard", "hat", "style", "mood") else f"{value} {attribute}"


def label_by_words(
    dictionary: Dictionary, hidden: Tensor, keep: Tensor, captions: Sequence[tuple[Caption, dict[str, int]]]
) -> dict[str, list[int]]:
    """Features by attribute value: captions that name it against captions that do not."""
    labels = {}
    for label, has, lacks in _contrasts(captions):
        if has.any() and lacks.any():
            a, b = torch.from_numpy(has), torch.from_numpy(lacks)
            found = contrast_features(dictionary, hidden[a], keep[a], hidden[b], keep[b], count=LABELLED)
            if found.features:
                labels[label] = list(found.features)
    return labels


def _contrasts(
    captions: Sequence[tuple[Caption, dict[str, int]]],
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(label, captions that name the value, captions that do not) for every value worth a label."""
    result = []
    for attribute, values in ATTRIBUTES.items():
        named = np.array([attribute in words.mentioned for words, _ in captions])
        value = np.array([labels[attribute] for _, labels in captions])
        for index, name in enumerate(values):
            if name == "none":
                continue
            result.append((_label(attribute, name), named & (value == index), value != index))
    return result


def _captions(count: int) -> list[tuple[Caption, dict[str, int]]]:
    """Captions of avatars that the model was trained on, in a wording of their own."""
    result = []
    for number in range(count):
        labels = labels_for("model", number, split="train")
        result.append((caption(labels, np.random.default_rng([11, number])), dict(labels)))
    return result


def _train(rows: Tensor, plan: Plan, device: str) -> Dictionary:
    settings = TrainConfig(n_features=plan.n_features, k=plan.k, steps=plan.steps, batch=2048, device=device)
    dictionary = train(rows, settings)
    dictionary.hook_point, dictionary.model_family = plan.hook_point, FAMILY
    return dictionary.cpu()


def _save(dictionary: Dictionary, plan: Plan, out: Path, say: Callable[[str], None]) -> dict[str, float]:
    save_dictionary(dictionary, out / f"{plan.file}.safetensors", dtype=torch.float16)
    f = dictionary.figures
    say(
        f"{plan.file} at {plan.hook_point}: explained variance {f['explained_variance']:.3f}, "
        f"L0 {f['l0']:.1f}, dead {f['dead_share']:.1%}"
    )
    return dict(f)
