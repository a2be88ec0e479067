"""Measure how well the bundled model's word maps find parts of avatars, for the tables in docs/word-maps.md.

Draws avatars that the model has never seen, noises them to ten timesteps and shows them to the model with a
caption that names their parts. Compares the map of a part's words with the part's pixels in the drawing. The
thresholds are chosen on the first images and used on the others. `--write` puts the tables into the document:
`python3 dev.py run -- python -m benchmarks.bench_word_maps --write`, some minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from comfy_revelio.analysis.edge_filter import follow_edges
from comfy_revelio.analysis.word_maps import late_layer_frames, mean_shares, resized_maps, scaled, word_heat
from comfy_revelio.host.standalone import use_comfyui
from comfy_revelio.render.word_maps import BLUR
from comfy_revelio.trace import WordFrame, WordTrace
from devtools.places import ROOT
from lab.data.attributes import HIDDEN, labels_for, seed_text, value_name
from lab.data.captions import caption
from lab.data.render import PARTS, masks, render
from lab.docs.tables import fill, table

DOCUMENT = ROOT / "docs" / "word-maps.md"
TIMESTEPS = "950, 850, 750, 650, 550, 450, 350, 250, 150, 50"
THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
WORDS = {
    "glasses": ("glasses", "eyeglasses", "spectacles", "sunglasses", "shades"),
    "hat": ("hat", "headwear"),
    "beard": ("beard", "bearded"),
    "hair": ("hair", "haired"),
    "background": ("background", "backdrop", "wall"),
}
SMALLEST = 0.002
"""Parts that cover a smaller share of the image than this are left out."""


@dataclass(frozen=True)
class Case:
    """One part that a caption names. truth: the part's pixels bool [H, W]; image: [H, W, 3]; trace: the
    attention to the caption's words; positions: the part's words in the caption."""

    part: str
    truth: Tensor
    image: Tensor
    trace: WordTrace
    positions: list[int]

    @property
    def filled(self) -> Tensor:
        """The part with its holes filled, such as the lenses of glasses; a background keeps its holes."""
        if self.part == "background":
            return self.truth
        return torch.from_numpy(binary_fill_holes(self.truth.numpy()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--choose", type=int, default=72, help="images on which the thresholds are chosen")
    parser.add_argument("--measure", type=int, default=80, help="images on which the maps are measured")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/word-maps.md")
    parser.add_argument("--quick", action="store_true", help="few images, as a check of the script")
    options = parser.parse_args()
    if options.quick:
        options.choose, options.measure = 24, 24
    use_comfyui()
    chosen = list(cases(range(options.choose)))
    measured = list(cases(range(options.choose, options.choose + options.measure)))
    blocks = blocks_of(chosen, measured, options.measure)
    print("\n\n".join(blocks.values()))
    if options.write:
        DOCUMENT.write_text(fill(DOCUMENT.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    return 0


@torch.no_grad()
def cases(numbers: Sequence[int]) -> Iterator[Case]:
    """Show noised avatars to the bundled model and return a case for each part that a caption names."""
    from comfy_revelio.host.mini.model import load_mini
    from comfy_revelio.host.record.words import record_words_of_image

    model, clip, vae = load_mini()
    labels = [labels_for("check", number, split="any") for number in numbers]
    drawn = render(labels, [seed_text("check", number) for number in numbers])
    images = torch.from_numpy(drawn.copy()).float() / 255
    for number, label, image in zip(numbers, labels, images, strict=True):
        said = caption(label, np.random.default_rng([77, number]))
        trace = record_words_of_image(model, clip, vae, image[None], said.text, TIMESTEPS, seed=number)
        words = trace.words["cond"]
        for part in PARTS:
            index = label[part]
            if part not in said.mentioned or index == HIDDEN or value_name(part, index) == "none":
                continue
            truth = torch.from_numpy(masks(label, seed_text("check", number), part))
            positions = positions_of_part(words, part)
            if positions and truth.float().mean() > SMALLEST:
                yield Case(part, truth, image, trace, positions)
        print(f"{number}: {said.text}", file=sys.stderr, flush=True)


def positions_of_part(words: Sequence[str], part: str) -> list[int]:
    """Return the positions of the words that name a part; "hair" after "facial" names a beard."""
    found = []
    for position, word in enumerate(words):
        facial = word == "hair" and position > 0 and words[position - 1] == "facial"
        if (part == "beard") if facial else word in WORDS[part]:
            found.append(position)
    return found


Heat = Callable[[Case], Tensor]


def heat_of(take: Callable[[WordTrace], Sequence[WordFrame]]) -> Heat:
    """Return a function that computes a case's map [H, W] from the frames that `take` selects."""
    return lambda case: resized_maps(word_heat(take(case.trace), 0, [case.positions]), *case.truth.shape)[0]


def edge_heat(case: Case) -> Tensor:
    """Return the map as Word Maps draws it if an image is connected, fitted to the image's edges."""
    heat = heat_of(chosen_layers)(case)[None]
    grid = max(frame.grid[-1] for frame in chosen_layers(case.trace))
    return follow_edges(heat, case.image, BLUR * case.truth.shape[1] / grid)[0]


def plain_heat(case: Case) -> Tensor:
    """Return the map as DAAM computes it: the mean over all layers and steps."""
    shares = mean_shares(case.trace.select("cond"), 0)[case.positions].sum(0)
    return resized_maps(scaled(shares[None]), *case.truth.shape)[0]


def iou(found: Tensor, truth: Tensor) -> float:
    """Return the intersection over union of two bool masks."""
    return float((found & truth).sum() / (found | truth).sum().clamp(min=1))


def by_part(parts: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Return each part's mean value over its cases, in the order of PARTS."""
    return {
        part: float(np.mean([value for own, value in zip(parts, values, strict=True) if own == part]))
        for part in PARTS
        if part in parts
    }


def mean(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values())))


class Seen:
    """Some cases with their maps."""

    def __init__(self, cases: Sequence[Case], heat: Heat) -> None:
        self._cases = cases
        self._heats = [heat(case) for case in cases]

    def scores(self, threshold: float, *, filled: bool = False) -> list[float]:
        """Return the IoU of each case, with masks above `threshold` times the peak. filled: see `Case`."""
        return [
            iou(heat > threshold * heat.max(), case.filled if filled else case.truth)
            for heat, case in zip(self._heats, self._cases, strict=True)
        ]

    def by_part(self, threshold: float, *, filled: bool = False) -> dict[str, float]:
        return by_part([case.part for case in self._cases], self.scores(threshold, filled=filled))

    def best(self) -> float:
        """Return the threshold that gives the highest mean IoU over parts."""
        return max(THRESHOLDS, key=lambda threshold: mean(self.by_part(threshold)))


def chosen_layers(trace: WordTrace) -> list[WordFrame]:
    return late_layer_frames(trace.select("cond"))


def one_layer(layer: str) -> Callable[[WordTrace], list[WordFrame]]:
    return lambda trace: trace.select("cond", layers=[layer])


def one_step(step: int) -> Callable[[WordTrace], list[WordFrame]]:
    return lambda trace: late_layer_frames(trace.select("cond", step=step))


def prior(chosen: Sequence[Case], measured: Sequence[Case]) -> dict[str, float]:
    """Return each part's IoU without any map: with one mask for all images, the part's usual position."""
    found = {}
    for part in PARTS:
        usual = torch.stack([case.truth.float() for case in chosen if case.part == part]).mean(0)
        mine = [case for case in measured if case.part == part]
        seen = [case for case in chosen if case.part == part]
        limit = max(THRESHOLDS, key=lambda t: np.mean([iou(usual > t, case.truth) for case in seen]))
        found[part] = float(np.mean([iou(usual > limit, case.truth) for case in mine]))
    return found


def blocks_of(chosen: Sequence[Case], measured: Sequence[Case], images: int) -> dict[str, str]:
    """Return the generated tables of the document: {"parts": ..., "layers": ..., "steps": ...}."""
    ways = (edge_heat, heat_of(chosen_layers), plain_heat)
    limits = [Seen(chosen, way).best() for way in ways]
    edges, cells, daam = (Seen(measured, way) for way in ways)
    names = [case.part for case in measured]
    usual = prior(chosen, measured)
    columns = {
        "IoU": edges.scores(limits[0]),
        "IoU, with its holes": edges.scores(limits[0], filled=True),
        "IoU, no edges": cells.scores(limits[1]),
        "IoU, as DAAM": daam.scores(limits[2]),
        "IoU, usual place": [usual[name] for name in names],
    }
    parts = [by_part(names, scores) for scores in columns.values()]
    rows = [
        [part, str(names.count(part)), *(f"{own[part]:.2f}" for own in parts)]
        for part in PARTS
        if part in names
    ]
    rows.append(["**mean over parts**", "", *(f"**{mean(own):.2f}**" for own in parts)])
    every = [float(np.mean(scores)) for scores in columns.values()]
    rows.append(["**mean over cases**", str(len(names)), *(f"**{value:.2f}**" for value in every)])
    block = (
        f"{images} images, with masks above {limits[0]:g} of the peak (no edges: {limits[1]:g}; as DAAM: "
        f"{limits[2]:g}). These thresholds were chosen on {len({id(case.trace) for case in chosen})} other "
        "images.\n\n" + table(["part", "cases", *columns], rows)
    )
    layers = measured[0].trace.layers
    steps = sorted({frame.step for frame in measured[0].trace.frames})
    return {
        "parts": block,
        "layers": _table(chosen, measured, {f"`{name}`": one_layer(name) for name in layers}, "layer"),
        "steps": _table(
            chosen,
            measured,
            {time.strip(): one_step(step) for step, time in zip(steps, TIMESTEPS.split(","), strict=True)},
            "timestep",
        ),
    }


def _table(
    chosen: Sequence[Case],
    measured: Sequence[Case],
    takes: dict[str, Callable[[WordTrace], Sequence[WordFrame]]],
    what: str,
) -> str:
    """Return a table with each part's IoU for every single layer or step, each with its best threshold."""
    rows = []
    for name, take in takes.items():
        heat = heat_of(take)
        found = Seen(measured, heat).by_part(Seen(chosen, heat).best())
        rows.append([name, *(f"{value:.2f}" for value in found.values()), f"{mean(found):.2f}"])
    return table([what, *PARTS, "mean"], rows)


if __name__ == "__main__":
    sys.exit(main())
