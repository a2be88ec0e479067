"""Labels and concepts from the prompts: what differs in the pictures whose prompt says a word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..dictionary import Concept, Dictionary
from ..steering.prompt_concept import rank_contrast
from .concept_of_runs import FINEST, codes_on_grid, concept_of_means

FEWEST = 4
"""Prompts that must say a word, and that must not."""
_WORD = re.compile(r"[^\W\d_][\w'-]+")
_SUMS_BYTES = 256 * 1024 * 1024
"""What the sums of the words of one pass may take."""
_LONGEST = 3
"""Words of a phrase between commas that still counts as one label."""
FUNCTION_WORDS = frozenset(
    (
        *(
            "a",
            "an",
            "the",
            "of",
            "in",
            "on",
            "at",
            "with",
            "and",
            "or",
            "to",
            "by",
            "for",
            "from",
            "without",
        ),
        *("no", "is", "are", "his", "her", "its", "their", "this", "that"),
    )
)
"""Words that name nothing that could be seen."""
_DULL = FUNCTION_WORDS | {"style", "portrait", "picture", "person", "photo", "image"}


def phrases(prompt: str) -> set[str]:
    """The single words of a prompt and its short phrases between commas, in lower case."""
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
    """Features by word, strongest first: those whose highest value tells pictures with it from others.

    rows: activations [N, d]; items [N]: the picture of each row; prompts: by picture. Words that nearly all
    or nearly no prompts say get no label, nor do those that no feature follows.
    """
    known = [number for number in items.unique().tolist() if number in prompts]
    if not known:
        return {}
    place = {number: index for index, number in enumerate(known)}
    peaks = torch.zeros(len(known), dictionary.n_features)
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        times = None if timesteps is None else timesteps[part]
        codes = dictionary.encode(rows[part], timestep=times)
        for number in items[part].unique().tolist():
            if number in place:
                mine = codes[(items[part] == number).nonzero()[:, 0].to(codes.values.device)]
                here = mine.peaks().amax(dim=0).cpu()
                peaks[place[number]] = torch.maximum(peaks[place[number]], here)
    said = [phrases(prompts[number]) for number in known]
    labels = {}
    for word in sorted(set().union(*said)):
        has = torch.tensor([word in words for words in said])
        if FEWEST <= int(has.sum()) <= len(known) - FEWEST:
            found = rank_contrast(
                peaks[has].mean(dim=0), peaks[~has].mean(dim=0), count=count, min_score=min_score
            )
            if found.features:
                labels[word] = list(found.features)
    return labels


Maps = Iterable[tuple[Tensor, Tensor]]
"""Activations [n, height, width, d_model], and the picture of each [n]."""


@torch.no_grad()
def concepts_of_prompts(
    dictionary: Dictionary, maps: Callable[[], Maps], prompts: Mapping[int, str], words: Sequence[str]
) -> dict[str, Concept]:
    """How the features change with each word: pictures whose prompt says it against the others.

    maps() goes through the activations from the start, once for every group of words whose sums fit into
    memory; prompts: by picture. The pictures of a word should differ in everything else by chance.
    """
    said = {number: phrases(prompt) for number, prompt in prompts.items()}
    at_once = max(1, _SUMS_BYTES // (4 * FINEST**2 * dictionary.n_features))
    found: dict[str, Concept] = {}
    for start in range(0, len(words), at_once):
        found |= _concepts_of(dictionary, maps(), said, words[start : start + at_once])
    return found


def _concepts_of(
    dictionary: Dictionary, maps: Maps, said: Mapping[int, set[str]], words: Sequence[str]
) -> dict[str, Concept]:
    sums: Tensor | None = None
    counts = torch.zeros(len(words))
    everything, total = torch.zeros(()), 0
    for x, items in maps:
        for one, item in zip(x.split(1), items.tolist(), strict=True):
            if item not in said:
                continue
            codes = codes_on_grid(dictionary, one)[0]
            has = torch.tensor([word in said[item] for word in words])
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
