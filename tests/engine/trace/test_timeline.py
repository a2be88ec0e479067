"""The numbers of a timeline, against the maps they are of."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from comfy_revelio import RevelioError
from comfy_revelio.trace import Reading, Trace
from comfy_revelio.trace.timeline import as_csv, timeline

PLACE = "middle_block.1"


def test_mean_peak_and_share_of_each_step(trace: Trace) -> None:
    reading = Reading(trace, PLACE, "cond", 1)
    line = timeline(reading, [3, 7, 0])
    for row, feature in enumerate((3, 7, 0)):
        for column, one in enumerate(trace.feature_map(PLACE, feature, item=1)):
            assert line.mean[row, column] == pytest.approx(one.mean().item())
            assert line.peak[row, column].abs() == one.abs().max()
            assert line.share[row, column] == pytest.approx((one != 0).float().mean().item())
    assert line.mean.abs().sum() > 0
    assert line.steps == (0, 1, 2) and line.sigmas == tuple(f.sigma for f in reading.steps)
    assert line.labels == ("glasses", "red hair", "")


def test_the_peak_keeps_its_sign(trace: Trace) -> None:
    frames = tuple(
        dataclasses.replace(f, codes=dataclasses.replace(f.codes, values=-f.codes.values))
        for f in trace.frames
    )
    reading = Reading(dataclasses.replace(trace, frames=frames), PLACE)
    fired = int(trace.frames[0].codes.indices[0, 0, 0])
    assert timeline(reading, [fired]).peak.min() < 0


def test_every_number_is_in_the_csv(trace: Trace) -> None:
    labels = {'a "hat", tall': [3]}
    note = dataclasses.replace(trace.dictionaries[PLACE], labels=labels)
    named = dataclasses.replace(trace, dictionaries={**trace.dictionaries, PLACE: note})
    runs = [timeline(Reading(named, PLACE, "cond", item), [3, 7]) for item in (0, 1)]
    rows = list(csv.DictReader(io.StringIO(as_csv(runs))))
    assert len(rows) == 2 * 2 * 3
    assert [rows[0][key] for key in ("run", "feature", "label", "step")] == ["1", "3", 'a "hat", tall', "1"]
    last = rows[-1]
    assert (last["run"], last["feature"], last["step"]) == ("2", "7", "3")
    assert float(last["mean"]) == pytest.approx(runs[1].mean[1, 2].item(), rel=1e-5)
    assert float(last["sigma"]) == pytest.approx(1 / 3, rel=1e-5)


def test_what_cannot_be_followed_is_a_sentence(trace: Trace) -> None:
    reading = Reading(trace, PLACE)
    with pytest.raises(RevelioError, match="at least one feature"):
        timeline(reading, [])
    with pytest.raises(RevelioError, match="0 to 39"):
        timeline(reading, [40])
    with pytest.raises(RevelioError, match="mean, peak, share"):
        timeline(reading, [3]).of("median")
