"""Find labels and concepts from prompts: compare the images whose prompt contains a word with the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..dictionary import Concept, Dictionary
from ..steering.prompt_concept import rank_contrast
from .concept_of_runs import FINEST, codes_on_grid, concept_of_means

FEWEST = 4
"""A word needs at least this many prompts that contain it, and as many that do not."""
_WORD = re.compile(r"[^\W\d_][\w'-]+")
_SUMS_BYTES = 256 * 1024 * 1024
"""Maximum memory for the words' sums in one pass over the activations."""
_LONGEST = 3
"""A phrase between commas can become a label if it has at most this many words."""
FUNCTION_WORDS = frozenset({
    "a", "an", "the", "of", "in", "on", "at", "with", "and", "or", "to", "by", "for", "from", "without",
    "no", "is", "are", "his", "her", "its", "their", "this", "that",
})  # fmt: skip
"""Words that name nothing visible."""
_DULL = FUNCTION_WORDS | {"style", "portrait", "picture", "person", "photo", "image"}


def phrases(prompt: str) -> set[str]:
    """Return the single words of a prompt and its short phrases between commas, in lower case.

    >>> sorted(phrases("A person with a red hat, blue eyes"))
    ['blue', 'blue eyes', 'eyes', 'hat', 'red']
    """
    text = prompt.lower()
    found = {word for word in _WORD.findall(text) if word not in _DULL}
    for part in text.split(","):
        words = [word for word in _WORD.findall(part) if word not in ("a", "an", "the")]
        if 1 < len(words) <= _LONGEST:
            found.add(" ".join(words))
    return found


def labels_of_prompts(
    dictionary: Dictionary,
    rows: Tensor,
    items: Tensor,
    prompts: Mapping[int, str],
    *,
    timesteps: Tensor | None = None,
    count: int = 4,
    min_score: float = 0.3,
) -> dict[str, list[int]]:
    """Return {word: features, strongest first}: the features' peaks distinguish the images with that word.

    rows: activations [n, d]. items: [n], the image number of each row. prompts: image number -> prompt. Words
    in nearly all or nearly no prompts are left out, and so are words that no feature distinguishes.
    """
    known = [number for number in items.unique().tolist() if number in prompts]
    if not known:
        return {}
    row_of = {number: row for row, number in enumerate(known)}
    peaks = torch.zeros(len(known), dictionary.n_features)
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        times = None if timesteps is None else timesteps[part]
        codes = dictionary.encode(rows[part], timestep=times)
        for number in items[part].unique().tolist():
            if number in row_of:
                own = codes[(items[part] == number).nonzero()[:, 0].to(codes.values.device)]
                peak = own.peaks().amax(dim=0).cpu()
                peaks[row_of[number]] = torch.maximum(peaks[row_of[number]], peak)
    words_of_prompts = [phrases(prompts[number]) for number in known]
    labels = {}
    for word in sorted(set().union(*words_of_prompts)):
        has = torch.tensor([word in words for words in words_of_prompts])
        if FEWEST <= int(has.sum()) <= len(known) - FEWEST:
            found = rank_contrast(
                peaks[has].mean(dim=0), peaks[~has].mean(dim=0), count=count, min_score=min_score
            )
            if found.features:
                labels[word] = list(found.features)
    return labels


Maps = Iterable[tuple[Tensor, Tensor]]
"""Batches of n images: (activations [n, height, width, d_model], image numbers [n])."""


@torch.no_grad()
def concepts_of_prompts(
    dictionary: Dictionary, maps: Callable[[], Maps], prompts: Mapping[int, str], words: Sequence[str]
) -> dict[str, Concept]:
    """Find each word's concept: compare the images whose prompt contains the word with the other images.

    maps: returns all activations; called once for every group of words whose sums fit into memory. prompts:
    image number -> prompt. Apart from the word, the two sets of images should differ only by chance.
    """
    words_of_prompts = {number: phrases(prompt) for number, prompt in prompts.items()}
    at_once = max(1, _SUMS_BYTES // (4 * FINEST**2 * dictionary.n_features))
    found: dict[str, Concept] = {}
    for start in range(0, len(words), at_once):
        found |= _concepts_of(dictionary, maps(), words_of_prompts, words[start : start + at_once])
    return found


def _concepts_of(
    dictionary: Dictionary, maps: Maps, words_of_prompts: Mapping[int, set[str]], words: Sequence[str]
) -> dict[str, Concept]:
    """Find the concepts of the words that only some prompts contain, in one pass over the activations."""
    sums: Tensor | None = None
    counts = torch.zeros(len(words))
    everything, total = torch.zeros(()), 0
    for x, items in maps:
        for map_, item in zip(x.split(1), items.tolist(), strict=True):
            if item not in words_of_prompts:
                continue
            codes = codes_on_grid(dictionary, map_)[0]
            has = torch.tensor([word in words_of_prompts[item] for word in words])
            if sums is None:
                sums = codes.new_zeros(len(words), *codes.shape)
            sums[has.to(codes.device)] += codes
            everything = everything.to(codes) + codes
            counts += has
            total += 1
    if sums is None:
        return {}
    return {
        word: concept_of_means(
            dictionary, (sums[i] / counts[i])[None], ((everything - sums[i]) / (total - counts[i]))[None]
        )
        for i, word in enumerate(words)
        if 0 < counts[i] < total
    }
