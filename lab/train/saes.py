"""Train the SAEs of Revelio Mini on its activations inside ComfyUI: `python -m lab saes`.

Activations of one set of images are harvested at all hook points at once; each SAE is trained on most of the
images and measured on the rest. A word labels the features that differ between two images of the same seed,
one whose prompt has the word and one whose prompt lacks it. Concepts are measured on the same pairs. For
attributes that every image has (style, skin, background), images in which the judge sees a value are
compared with all other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from comfy_revelio.analysis import concept_between
from comfy_revelio.analysis.image_kinds import kind_reader
from comfy_revelio.dictionary import Concept, Dictionary, save_dictionary
from comfy_revelio.host.learn.in_memory import harvest
from comfy_revelio.host.mini import config
from comfy_revelio.host.mini.model import load_mini
from comfy_revelio.host.record.generation import encode, sample
from comfy_revelio.host.text.encoder_taps import resolve_layer, text_hidden
from comfy_revelio.steering.prompt_concept import contrast_features, contrast_score, rank_contrast
from comfy_revelio.training import TrainConfig, feature_stats, measure, train

from ..data.attributes import ATTRIBUTES, NAMES, STYLES, index_of, labels_for, value_name
from ..data.captions import Caption, caption, phrases
from ..evaluate.judge import load_judge
from ..evaluate.measure import SAMPLING
from .precision import quick_dtype


@dataclass(frozen=True)
class Plan:
    """One SAE of the bundle."""

    file: str
    hook_point: str
    n_features: int
    k: int
    steps: int
    carriers: int = 0
    """How many features are stored per concept; more features steer more cleanly but need a larger file."""


UNET_PLANS = (
    Plan("revelio_mini_middle", "middle_block.1", 1536, 16, 600, carriers=32),
    Plan("revelio_mini_up2", "output_blocks.2.1", 1536, 16, 600, carriers=128),
    Plan("revelio_mini_up4", "output_blocks.4.1", 1536, 16, 600, carriers=64),
)
"""Hook points chosen by activation patching: activations from a prompt with a word replaced the activations
from the same prompt without the word. In the middle and before output_blocks.2.1, patching changes nothing;
at 2.1 and 3.1 glasses appear; at 4.1, every part does."""
TEXT_PLAN = Plan("revelio_mini_text", "layers.1", 256, 8, 600)

FAMILY = "revelio-mini"
LABELLED = 4
"""How many features a label gets at most, strongest first."""
MIN_SCORE = 0.5
PARTS = ("hair", "glasses", "beard", "hat", "mood", "clothes")
"""Attributes that can be missing from an image, or at least from a prompt."""
FEWEST_PAIRS = 4
STEERED = ("hair", "glasses", "beard", "hat", "mood")
"""Attributes whose values become concepts."""


@dataclass(frozen=True)
class Shot:
    """An image to harvest. base: the number of the shot with the same prompt without `value`; -1 if none."""

    text: str
    seed: int
    attribute: str = ""
    value: str = ""
    base: int = -1


def train_all(
    images_count: int = 64,
    pairs_count: int = 56,
    captions_count: int = 4000,
    *,
    out: Path = config.WEIGHTS_DIR.parent,
    device: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Harvest, train, measure, label and save every SAE; return the metrics by file name.

    images_count: how many images to generate from ordinary captions.
    pairs_count: how many prompts to repeat with each value of PARTS added in turn.
    """
    captions = _captions(max(images_count, captions_count))
    shots = paired_shots(pairs_count)
    shots += [Shot(words.text, number) for number, (words, _) in enumerate(captions[:images_count])]
    maps, values = harvest_unet(shots, say=say)
    metrics = train_unet_saes(shots, maps, values, out=out, device=device, say=say)
    metrics[TEXT_PLAN.file] = train_text_sae(captions[:captions_count], out=out, device=device, say=say)
    return metrics


def paired_shots(count: int) -> list[Shot]:
    """Return `count` prompts without PARTS, each followed by a copy for each value its style can draw."""
    shots: list[Shot] = []
    for number in range(count):
        labels = labels_for("model", 1_000_000 + number, split="train")
        rng = np.random.default_rng([12, number])
        base, seed = len(shots), 1_000_000 + number
        plain = caption(labels, rng, without=PARTS).text
        shots.append(Shot(plain, seed))
        drawable = STYLES[value_name("style", labels["style"])]
        for attribute in PARTS:
            for value in drawable[attribute]:
                if value != "none":
                    words = phrases(attribute, value)
                    text = f"{plain}, {words[int(rng.integers(len(words)))]}"
                    shots.append(Shot(text, seed, attribute, value, base))
    return shots


def harvest_unet(shots: Sequence[Shot], *, say: Callable[[str], None]) -> tuple[dict[str, Tensor], Tensor]:
    """Generate the shots; return the activations of the positive prompt at each hook point, float16
    [steps, items, H, W, width], and the judge's values for the images, int64 [items, attributes]."""
    model, clip, vae = load_mini(dtype=quick_dtype())
    judge = load_judge()
    negative = encode(clip, [""])
    seen: list[Tensor] = []

    def generate(tapped: Any) -> None:
        for start in range(0, len(shots), 32):
            part = shots[start : start + 32]
            positive = encode(clip, [shot.text for shot in part])
            latents = sample(tapped, positive, negative, [shot.seed for shot in part], **SAMPLING)
            seen.append(judge.label(vae.decode(latents).float().cpu()))
            say(f"harvested {start + len(part)} of {len(shots)} images")

    maps = harvest(model, [plan.hook_point for plan in UNET_PLANS], generate)
    return maps, torch.cat(seen)


def train_unet_saes(
    shots: Sequence[Shot],
    maps: dict[str, Tensor],
    values: Tensor,
    *,
    out: Path,
    device: str,
    say: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Train the SAEs of the UNet on the result of `harvest_unet`; it removes used entries from `maps`."""
    pairs = pair_contrasts(shots, values)
    metrics = {}
    for plan in UNET_PLANS:
        here = maps.pop(plan.hook_point)
        items = here.shape[1]
        unseen = torch.arange(items) % 8 == 7
        dictionary = _train(here[:, ~unseen].flatten(0, 3), plan, device)
        dictionary.metrics = measure(dictionary, here[:, unseen].flatten(0, 1))
        dictionary.set_stats(feature_stats(dictionary, here[:, ~unseen].flatten(0, 1)))
        peaks = peaks_of(dictionary, here)
        dictionary.labels = label_by_contrast(peaks, image_contrasts(values), one_each=True)
        dictionary.labels |= label_by_contrast(peaks, pairs)
        steered = pair_contrasts(shots, values, STEERED)
        dictionary.concepts = concepts_of_pairs(dictionary, here, values, steered, plan.carriers)
        metrics[plan.file] = _save(dictionary, plan, out, say)
    return metrics


def train_text_sae(
    captions: Sequence[tuple[Caption, dict[str, int]]], *, out: Path, device: str, say: Callable[[str], None]
) -> dict[str, float]:
    """Train the SAE of a text layer on all word tokens of the captions and a tenth of the other tokens."""
    _, clip, _ = load_mini()
    width = config.TEXT["hidden_size"]
    layer = resolve_layer(clip, TEXT_PLAN.hook_point, width, TEXT_PLAN.file)
    texts = [words.text for words, _ in captions]
    hidden, keep = text_hidden(clip, texts, layer)
    padding = torch.rand(keep.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    cut = len(texts) * 7 // 8
    taken = keep | padding
    dictionary = _train(hidden[:cut][taken[:cut]], TEXT_PLAN, device)
    dictionary.metrics = measure(dictionary, hidden[cut:][taken[cut:]])
    dictionary.set_stats(feature_stats(dictionary, hidden[:cut][keep[:cut]]))
    dictionary.labels = label_by_words(dictionary, hidden, keep, captions)
    return _save(dictionary, TEXT_PLAN, out, say)


Contrast = tuple[Tensor, Tensor]
"""The indices of the images with a value, and the indices of the images without it."""


def image_contrasts(values: Tensor) -> dict[str, Contrast]:
    """For each label, split the images by whether the judge sees its value; values: [items, attributes]."""
    found = {}
    for column, (attribute, names) in enumerate(ATTRIBUTES.items()):
        for index, name in enumerate(names):
            has = values[:, column] == index
            if attribute not in PARTS and has.any() and not has.all():
                found[_label(attribute, name)] = (has.nonzero()[:, 0], (~has).nonzero()[:, 0])
    return found


def pair_contrasts(
    shots: Sequence[Shot], values: Tensor, parts: Sequence[str] = PARTS
) -> dict[str, Contrast]:
    """For each label, return the pairs in which the judge sees the value only if the prompt names it."""
    pairs: dict[str, list[tuple[int, int]]] = {}
    for number, shot in enumerate(shots):
        if shot.base >= 0 and shot.attribute in parts:
            seen = values[:, NAMES.index(shot.attribute)] == index_of(shot.attribute, shot.value)
            if seen[number] and not seen[shot.base]:
                pairs.setdefault(_label(shot.attribute, shot.value), []).append((number, shot.base))
    return {
        label: (torch.tensor([n for n, _ in found]), torch.tensor([base for _, base in found]))
        for label, found in pairs.items()
        if len(found) >= FEWEST_PAIRS
    }


def concepts_of_pairs(
    dictionary: Dictionary, maps: Tensor, values: Tensor, pairs: Mapping[str, Contrast], carriers: int
) -> dict[str, Concept]:
    """Measure each label's concept separately per drawing style, since styles draw it differently.

    maps: [steps, items, H, W, width].
    """
    pooled = maps.mean(dim=(2, 3), dtype=torch.float32).flatten(0, 1)
    reader = kind_reader(pooled, values[:, NAMES.index("style")].repeat(len(maps)))

    def of(items: Tensor) -> Iterator[Tensor]:
        return (step[items] for step in maps)

    return {
        label: concept_between(dictionary, of(with_it), of(without), reader=reader, count=carriers)
        for label, (with_it, without) in pairs.items()
    }


def label_by_contrast(
    peaks: Tensor, contrasts: Mapping[str, Contrast], *, one_each: bool = False
) -> dict[str, list[int]]:
    """Return the features of each label: those whose peak is higher in images with the label than without.

    peaks: [items, n_features], from `peaks_of`. one_each: give each feature only the label that it
    separates best. Use it if the images also differ in other ways, to which the feature may respond.
    """
    highs = torch.stack([peaks[with_it].mean(dim=0) for with_it, _ in contrasts.values()])
    lows = torch.stack([peaks[without].mean(dim=0) for _, without in contrasts.values()])
    if one_each:
        scores = contrast_score(highs, lows)
        highs = torch.where(scores == scores.amax(dim=0), highs, 0.0)
    labels = {}
    for label, high, low in zip(contrasts, highs, lows, strict=True):
        found = rank_contrast(high, low, count=LABELLED, min_score=MIN_SCORE)
        if found.features:
            labels[label] = list(found.features)
    return labels


def peaks_of(dictionary: Dictionary, maps: Tensor) -> Tensor:
    """Return the highest value of each feature in each image, float32 [items, n_features].

    maps: [steps, items, H, W, width].
    """
    parts = []
    for start in range(0, maps.shape[1], 16):
        steps = [dictionary.encode(step[start : start + 16].float().flatten(1, 2)).peaks() for step in maps]
        parts.append(torch.stack(steps).amax(dim=0))
    return torch.cat(parts)


def _label(attribute: str, value: str) -> str:
    return value if attribute in ("glasses", "beard", "hat", "style", "mood") else f"{value} {attribute}"


def label_by_words(
    dictionary: Dictionary, hidden: Tensor, keep: Tensor, captions: Sequence[tuple[Caption, dict[str, int]]]
) -> dict[str, list[int]]:
    """Label features by contrast between captions that name an attribute value and captions without it."""
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
    """For every value to label, return (label, captions that name it, captions of avatars without it)."""
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
    """Write captions, in new wordings, of avatars that the model was trained on."""
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
    f = dictionary.metrics
    say(
        f"{plan.file} at {plan.hook_point}: explained variance {f['explained_variance']:.3f}, "
        f"L0 {f['l0']:.1f}, dead {f['dead_share']:.1%}"
    )
    return dict(f)
