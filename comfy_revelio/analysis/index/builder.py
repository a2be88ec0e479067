"""Build a feature index from a stream of activations, image by image, in bounded memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from ...dictionary import Codes, Dictionary
from ...errors import RevelioError
from ..contrast import Spread, effect_size
from ..prompt_labels import FEWEST, FUNCTION_WORDS, phrases
from .crops import crop_around
from .feature_index import LONGEST_LABEL, FeatureIndex, Label, dictionary_id
from .files import LARGEST_CROP, MOST_EXAMPLES

MOST_BYTES = 4 * 1024**3
"""Maximum memory for the crops."""
MIN_EFFECT = 1.0
"""Effect size above which a word becomes a feature's label."""
_WORDS_BYTES = 256 * 1024**2


class IndexBuilder:
    """Builds an index: pass all rows of an image to `see`, then call `close`; call `finish` after all images.

    captions: image number -> caption, for some or all images; the source of labels. top: number of examples
    to keep per feature, each from a different image. crop: side of the crops in pixels; 0 for no crops.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        captions: Mapping[int, str],
        grid: tuple[int, int] | None,
        *,
        top: int = 8,
        crop: int = 48,
    ) -> None:
        n = dictionary.n_features
        if not 1 <= top <= MOST_EXAMPLES or not 0 <= crop <= LARGEST_CROP:
            raise RevelioError(
                f"An index must have 1 to {MOST_EXAMPLES} examples per feature, with crops of 0 to "
                f"{LARGEST_CROP} pixels a side; got {top} examples with crops of {crop} pixels."
            )
        if (size := n * top * crop * crop * 3) > MOST_BYTES:
            raise RevelioError(
                f"{top} crops of {crop} pixels for each of {n} features would take {size / 2**30:.1f} GiB; "
                f"use fewer or smaller crops, to stay below {MOST_BYTES / 2**30:.0f} GiB."
            )
        self.dictionary, self.grid, self.items = dictionary, grid, 0
        self._value = torch.zeros(n, top)
        self._item = torch.zeros(n, top, dtype=torch.int64)
        self._token = torch.zeros(n, top, dtype=torch.int32)
        self._time = torch.zeros(n, top)
        self._crops = torch.zeros(n, top, crop, crop, 3, dtype=torch.uint8) if crop and grid else None
        self._fired, self._sum = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.float64)
        self._tokens = 0
        self._open: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._captions = {number: phrases(text) for number, text in captions.items()}
        self._everything = Spread(n)
        self._words = {word: Spread(n) for word in _vocabulary(self._captions, n)}

    @torch.no_grad()
    def see(self, item: int, timestep: float, rows: Tensor) -> None:
        """Add the activations [T, d_model] of an image's tokens at one timestep; may be called repeatedly."""
        device = self.dictionary.W_enc.device
        codes = self.dictionary.encode(rows.to(device), timestep=timestep).to("cpu")
        fires = codes.values > 0
        fired = codes.indices[fires]
        self._fired += torch.bincount(fired, minlength=len(self._fired))
        self._sum.index_add_(0, fired, codes.values[fires].double())
        self._tokens += len(rows)
        peak, token = _strongest(codes)
        if (known := self._open.get(item)) is None:
            time = torch.full_like(peak, timestep)
        else:
            higher = peak > known[0]
            peak, token = torch.where(higher, peak, known[0]), torch.where(higher, token, known[1])
            time = torch.where(higher, timestep, known[2])
        self._open[item] = (peak, token, time)

    def close(self, item: int, image: Tensor | None = None) -> None:
        """Finish an image after all its rows were added. image: [H, W, 3] in 0..1, for the crops."""
        if item not in self._open:
            return
        peak, token, time = self._open.pop(item)
        self.items += 1
        if item in self._captions:
            self._everything.add(peak[None])
            for word in self._captions[item] & self._words.keys():
                self._words[word].add(peak[None])
        lowest, slot = self._value.min(dim=1)
        features = (peak > lowest).nonzero()[:, 0]
        slot = slot[features]
        for kept, found in ((self._value, peak), (self._token, token), (self._time, time)):
            kept[features, slot] = found[features].to(kept.dtype)
        self._item[features, slot] = item
        if self._crops is not None and image is not None:
            assert self.grid is not None
            tokens, which = token[features].unique(return_inverse=True)
            crops = crop_around(image, tokens, self.grid, self._crops.shape[2])
            self._crops[features, slot] = crops[which]

    def finish(self, source: str) -> FeatureIndex:
        """Return the index of all finished images. source: what the images are, in a few words."""
        if not self.items:
            raise RevelioError("There are no images to index; give at least one.")
        order = self._value.argsort(dim=1, descending=True, stable=True)
        value = self._value.gather(1, order)
        kept = value > 0
        rows = torch.arange(len(order))[:, None].expand_as(order)[kept]
        slots = order[kept]
        counts = kept.sum(1)
        return FeatureIndex(
            self.dictionary.hook_point,
            dictionary_id(self.dictionary),
            self.grid,
            self.items,
            source,
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            value[kept],
            self._item[rows, slots],
            self._token[rows, slots],
            self._time[rows, slots],
            (self._sum / self._fired.clamp(min=1)).float(),
            value[:, 0].contiguous(),
            (self._fired / max(1, self._tokens)).float(),
            None if self._crops is None else self._crops[rows, slots],
            self._labels(),
        )

    def _labels(self) -> dict[int, Label]:
        """Label each feature with the word whose images it distinguishes best, if d is above MIN_EFFECT."""
        best = torch.full((self.dictionary.n_features,), MIN_EFFECT)
        names: dict[int, str] = {}
        for word, spread in self._words.items():
            effect = effect_size(spread, self._everything.without(spread))
            for feature in (effect > best).nonzero()[:, 0].tolist():
                names[feature], best[feature] = word, effect[feature]
        return {
            f: Label(word[:LONGEST_LABEL], round(float(best[f]), 3), "captions") for f, word in names.items()
        }


def _strongest(codes: Codes) -> tuple[Tensor, Tensor]:
    """Return each feature's highest value in codes [T, k], and the token where it occurs: both [n]."""
    peak = codes[None].peaks()[0]
    where = torch.arange(len(codes.values))[:, None].expand_as(codes.values)
    best = (codes.values == peak[codes.indices]) & (codes.values > 0)
    token = torch.zeros(codes.n_features, dtype=torch.int64)
    token[codes.indices[best]] = where[best]
    return peak, token


def _vocabulary(captions: Mapping[int, set[str]], n: int) -> list[str]:
    """Return words that only some captions contain, most common first, as many as fit into memory.

    Words that occur in exactly the same captions, such as "comic" and "book", cannot be distinguished: only
    the longest is used, preferably one without function words such as "with".
    """

    def preference(word: str) -> tuple[bool, int]:
        return FUNCTION_WORDS.isdisjoint(word.split()), len(word)

    counts = Counter(word for words in captions.values() for word in sorted(words))
    marks: Counter[str] = Counter()  # words in the same captions get the same sum
    for number, words in captions.items():
        mark = random.Random(number).getrandbits(64)
        for word in words:
            marks[word] += mark
    longest: dict[int, str] = {}
    for word, count in counts.most_common():
        if FEWEST <= count <= len(captions) - FEWEST:
            other = longest.setdefault(marks[word], word)
            longest[marks[word]] = max(other, word, key=preference)
    return list(longest.values())[: max(1, _WORDS_BYTES // (16 * n))]
