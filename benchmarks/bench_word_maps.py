"""How well word maps find the parts that words name, on the bundled model: the tables of docs/word-maps.md.

Avatars that the model has never seen are drawn, noised to ten timesteps and shown to the model with a caption
that names their parts; each word's map is compared with the pixels that the part has in the drawing. The
first pictures choose the threshold, the others are measured. `--write` puts the tables into the document:
`python3 dev.py run -- python -m benchmarks.bench_word_maps --write`, some minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from comfy_revelio.analysis.word_maps import mean_shares, showing, spread, word_heat
from comfy_revelio.host.standalone import use_comfyui
from comfy_revelio.mini.attributes import HIDDEN, labels_for, seed_text, value_name
from comfy_revelio.mini.captions import caption
from comfy_revelio.mini.render import PARTS, masks, render
from comfy_revelio.trace import WordFrame, WordTrace
from devtools.figures import fill, table
from devtools.places import ROOT

DOCUMENT = ROOT / "docs" / "word-maps.md"
TIMESTEPS = "950, 850, 750, 650, 550, 450, 350, 250, 150, 50"
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
WORDS = {
    "glasses": ("glasses", "eyeglasses", "spectacles", "sunglasses", "shades"),
    "hat": ("hat", "headwear"),
    "beard": ("beard", "bearded"),
    "hair": ("hair", "haired"),
    "background": ("background", "backdrop", "wall"),
}
SMALLEST = 0.002
"""Share of the picture below which a part is too small to be looked for."""


@dataclass(frozen=True)
class Case:
    """A part that the caption names: its pixels bool [H, W], what was recorded, and where its words stand."""

    part: str
    truth: Tensor
    trace: WordTrace
    places: list[int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--choose", type=int, default=40, help="pictures that choose the threshold")
    parser.add_argument("--measure", type=int, default=80, help="pictures that are measured")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/word-maps.md")
    options = parser.parse_args()
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
    """The named parts of these avatars, noised and read by the bundled model."""
    from comfy_revelio.host.mini_model import load_mini
    from comfy_revelio.host.word_recording import read_image

    model, clip, vae = load_mini()
    labels = [labels_for("check", number, split="any") for number in numbers]
    drawn = render(labels, [seed_text("check", number) for number in numbers])
    images = torch.from_numpy(drawn.copy()).float() / 255
    for number, label, image in zip(numbers, labels, images, strict=True):
        said = caption(label, np.random.default_rng([77, number]))
        trace = read_image(model, clip, vae, image[None], said.text, TIMESTEPS, seed=number)
        words = trace.words["cond"]
        for part in PARTS:
            index = label[part]
            if part not in said.mentioned or index == HIDDEN or value_name(part, index) == "none":
                continue
            truth = torch.from_numpy(masks(label, seed_text("check", number), part))
            places = places_of_part(words, part)
            if places and truth.float().mean() > SMALLEST:
                yield Case(part, truth, trace, places)
        print(f"{number}: {said.text}", file=sys.stderr, flush=True)


def places_of_part(words: Sequence[str], part: str) -> list[int]:
    """Where the words of a part stand; the hair of "facial hair" is a beard."""
    found = []
    for place, word in enumerate(words):
        facial = word == "hair" and place > 0 and words[place - 1] == "facial"
        if (part == "beard") if facial else word in WORDS[part]:
            found.append(place)
    return found


def heat_of(case: Case, frames: Sequence[WordFrame]) -> Tensor:
    """The map of a case's words over the pixels of the picture: [H, W] in 0..1."""
    heat = word_heat(mean_shares(frames, 0), [case.places])
    return spread(heat, *case.truth.shape)[0]


def iou(found: Tensor, truth: Tensor) -> float:
    """Intersection over union of two bool masks."""
    return float((found & truth).sum() / (found | truth).sum().clamp(min=1))


def by_part(parts: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """The mean over the cases of each part, in the order of PARTS."""
    return {
        part: float(np.mean([value for own, value in zip(parts, values, strict=True) if own == part]))
        for part in PARTS
        if part in parts
    }


def mean(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values())))


class Seen:
    """The maps of some cases, with what `take` takes of each run."""

    def __init__(self, cases: Sequence[Case], take: Callable[[WordTrace], Sequence[WordFrame]]) -> None:
        self._cases = cases
        self._heats = [heat_of(case, take(case.trace)) for case in cases]

    def scores(self, threshold: float) -> dict[str, float]:
        """Mean IoU of each part, of masks above this share of the peak."""
        found = [
            iou(heat > threshold * heat.max(), case.truth)
            for heat, case in zip(self._heats, self._cases, strict=True)
        ]
        return by_part([case.part for case in self._cases], found)

    def best(self) -> float:
        """The threshold with the highest mean over parts."""
        return max(THRESHOLDS, key=lambda threshold: mean(self.scores(threshold)))


def everything(trace: WordTrace) -> list[WordFrame]:
    return trace.select("cond")


def chosen_layers(trace: WordTrace) -> list[WordFrame]:
    return showing(trace.select("cond"))


def one_layer(layer: str) -> Callable[[WordTrace], list[WordFrame]]:
    return lambda trace: trace.select("cond", layers=[layer])


def one_step(step: int) -> Callable[[WordTrace], list[WordFrame]]:
    return lambda trace: showing(trace.select("cond", step=step))


def prior(chosen: Sequence[Case], measured: Sequence[Case]) -> dict[str, float]:
    """IoU of the place where a part usually is, the same for every picture: what looking at no map gives."""
    found = {}
    for part in PARTS:
        usual = torch.stack([case.truth.float() for case in chosen if case.part == part]).mean(0)
        mine = [case for case in measured if case.part == part]
        seen = [case for case in chosen if case.part == part]
        limit = max(THRESHOLDS, key=lambda t: np.mean([iou(usual > t, case.truth) for case in seen]))
        found[part] = float(np.mean([iou(usual > limit, case.truth) for case in mine]))
    return found


def blocks_of(chosen: Sequence[Case], measured: Sequence[Case], pictures: int) -> dict[str, str]:
    """The blocks of the page: parts, layers, steps."""
    limit, plain_limit = Seen(chosen, chosen_layers).best(), Seen(chosen, everything).best()
    own = Seen(measured, chosen_layers).scores(limit)
    plain = Seen(measured, everything).scores(plain_limit)
    usual = prior(chosen, measured)
    counts = {part: sum(case.part == part for case in measured) for part in own}
    rows = [[p, str(counts[p]), f"{own[p]:.2f}", f"{plain[p]:.2f}", f"{usual[p]:.2f}"] for p in own]
    rows.append(["**mean**", "", f"**{mean(own):.2f}**", f"{mean(plain):.2f}", f"{mean(usual):.2f}"])
    parts = (
        f"{pictures} pictures, mask above {limit:g} of the peak (all layers: above {plain_limit:g}), which "
        "was chosen on other pictures.\n\n"
        + table(["part", "cases", "IoU", "IoU, all layers alike", "IoU, usual place"], rows)
    )
    layers = measured[0].trace.layers
    steps = sorted({frame.step for frame in measured[0].trace.frames})
    return {
        "parts": parts,
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
    """IoU of each part with only a layer or only a step, each with the threshold that suits it best."""
    rows = []
    for name, take in takes.items():
        found = Seen(measured, take).scores(Seen(chosen, take).best())
        rows.append([name, *(f"{value:.2f}" for value in found.values()), f"{mean(found):.2f}"])
    return table([what, *PARTS, "mean"], rows)


if __name__ == "__main__":
    sys.exit(main())
