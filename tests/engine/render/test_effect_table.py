"""The figure of effect sizes and the sheet of examples: what is where, whatever the sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis.contrast import Effects, Findings
from comfy_revelio.analysis.index import IndexBuilder
from comfy_revelio.render.colours import ACCENT
from comfy_revelio.render.effect_table import effect_table, found_table
from comfy_revelio.render.example_sheet import example_sheet, label_table
from comfy_revelio.trace import DictionaryNote

PLACEMENTS = ("middle_block.1", "output_blocks.4.1")


def _findings(steps: int, best: tuple[int, int] | None = (1, 0), missing: int = 0) -> Findings:
    """Small effects everywhere, and one of 4 for feature 7 at the row and step `best`."""
    places = {}
    for row, name in enumerate(PLACEMENTS):
        effect = torch.full((steps, 9), 0.5 if best else -0.5)
        if best and best[0] == row:
            effect[best[1], 7] = 4.0
        shown = steps - missing * row
        places[name] = Effects(tuple(range(shown)), effect[:shown], effect[:shown], effect[:shown] * 0)
    notes = {name: DictionaryNote(9, 2, {"glasses": [7]}) for name in PLACEMENTS}
    return Findings(places, steps, notes)


def _frame(figure: torch.Tensor) -> tuple[float, float]:
    """Middle of the bright frame as shares of the figure's height and width."""
    accent = torch.tensor(ACCENT) / 255
    ys, xs = ((figure - accent).abs().amax(-1) < 0.02).nonzero(as_tuple=True)
    return float(ys.float().mean()) / figure.shape[0], float(xs.float().mean()) / figure.shape[1]


def test_the_frame_is_round_the_best_cell() -> None:
    first, last = (_frame(effect_table(_findings(10, best))) for best in ((0, 0), (1, 9)))
    assert first[0] < last[0] and first[1] < last[1]


@pytest.mark.parametrize("steps", [1, 4, 20, 61, 1000])
def test_any_number_of_steps(steps: int) -> None:
    figure = effect_table(_findings(steps, (1, steps // 2)))
    assert figure.shape[1] < 1700 and figure.shape[0] < 400
    assert float(figure.min()) >= 0 and float(figure.max()) <= 1
    _frame(figure)


def test_places_may_lack_steps_and_nothing_may_be_found() -> None:
    assert effect_table(_findings(6, (0, 5), missing=2)).shape[2] == 3
    nothing = _findings(3, None)
    assert nothing.best(5) == []
    assert effect_table(nothing, compared="1 with it against 1 without").shape[2] == 3
    assert found_table([], 3) == "No feature is higher on the first side."


def test_the_table_names_place_and_step() -> None:
    findings = _findings(10, (1, 3))
    line = found_table(findings.best(1), 10).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "#7", "glasses", "output_blocks.4.1", "4/10", "4.00", "4", "0",
    ]  # fmt: skip


def test_examples_of_features(make_dictionary) -> None:
    sae = make_dictionary()
    words = {n: "a hat" if n % 2 else "a dog" for n in range(12)}
    builder = IndexBuilder(sae, words, (3, 5), top=3, crop=8)
    for item in range(12):
        rows = torch.randn(15, 12, generator=torch.Generator().manual_seed(item))
        rows[6] += 4 * sae.W_enc[11] * (item % 2)
        builder.see(item, 1.0, rows)
        builder.close(item, torch.full((30, 50, 3), 1.0))
    index = builder.finish("made up")
    assert index.labels[11].text == "hat"
    sheet = example_sheet(index)
    assert sheet.shape[2] == 3
    one, two = (example_sheet(index, features) for features in ([11], [11, 4]))
    assert two.shape[0] - one.shape[0] == 78
    assert int((one > 0.99).all(-1).sum()) > 3 * 70 * 70  # three white crops
    assert label_table(index).splitlines()[2].split("|")[2].strip() in ("hat", "dog")
    assert "No feature has a label" in label_table(replace(index, labels={}))
    assert example_sheet(replace(index, labels={})).shape[2] == 3
    with pytest.raises(RevelioError, match="no crops"):
        example_sheet(replace(index, crops=None))
