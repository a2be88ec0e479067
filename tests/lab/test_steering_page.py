"""The measured effects of steering get into their page."""

from __future__ import annotations

import pytest

from lab.docs import steering_page
from lab.docs.tables import fill

ROW = {"name": "push", "strength": -2.0, "rate": 0.25, "others": 0.93, "pixel_change": 0.0314}
REPORT = {
    "n_prompts": 16,
    "concept": "glasses",
    "hook_point": "output_blocks.4.1",
    "steps": 20,
    "sampler": "euler",
    "cfg": 3.0,
    "plain": {"removal": {"rate": 1.0, "others": 0.95}, "addition": {"rate": 0.0, "others": 0.9}},
    "masks": [
        {
            "hook_point": "middle_block.1",
            **{"inside": 0.02, "outside": 0.005, "ratio": 0.25},
            **{"held inside": 0.01, "held outside": 0.001, "held ratio": 0.1},
        }
    ],
} | {
    group: [ROW | {"direction": "removal"}, ROW | {"direction": "addition", "name": "add", "rate": 0.5}]
    for group in ("modes", "roles", "schedules")
}


def test_every_block_of_the_page_is_filled_with_the_numbers() -> None:
    blocks = steering_page.blocks_of(REPORT)
    page = fill(steering_page.PAGE.read_text(encoding="utf-8"), blocks)
    for name, block in blocks.items():
        assert f"<!-- figures: {name} -->\n{block}\n<!-- /figures -->" in page
    assert "| push | -2 | 25% | 2.0 | 0.031 |" in blocks["modes"]
    assert "| add | -2 | 50% | -3.0 | 0.031 |" in blocks["schedules"]
    assert "| `middle_block.1` | 0.0200 | 0.0050 | 0.25 |" in blocks["masks"]
    assert "| `middle_block.1`, noise mask too | 0.0100 | 0.0010 | 0.10 |" in blocks["masks"]
    assert "100% of the first and in 0% of the second" in blocks["sample"]


def test_a_block_that_nobody_fills_is_found() -> None:
    with pytest.raises(KeyError):
        fill("<!-- figures: other -->\nx\n<!-- /figures -->", steering_page.blocks_of(REPORT))
