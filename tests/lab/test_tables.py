"""Measured figures get into the documents, and only between their marks."""

from __future__ import annotations

from lab.docs.tables import DOCUMENTS, blocks_of, fill

EFFECT = {"removal_relative": 0.5, "removal_cost": 0.02, "addition_points": 0.6, "addition_cost": 0.01}
REPORT = {
    "mini_model": {
        "prompt_accuracy": 0.925,
        "by_attribute": {"hat": 0.9, "mood": 0.95},
        "chance": {"hat": 0.7, "mood": 0.4},
        "n_prompts": 512,
        "steps": 20,
        "sampler": "euler",
        "cfg": 3.0,
    },
    "judge": {"accuracy": 0.99, "by_attribute": {"hat": 1.0, "mood": 0.98}, "n_renders": 3000},
    "saes": [
        {
            "name": "a",
            "hook_point": "middle_block.1",
            "n_features": 8,
            "k": 2,
            "explained_variance": 0.9,
            "l0": 2.0,
            "dead_share": 0.25,
        }
    ],
    "steering": {
        "steer_concept_paper": {"summary": EFFECT},
        "steer_features": {"summary": EFFECT | {"removal_relative": 0.8}},
        "n_per_concept": 128,
        "best_hook_point": "output_blocks.4.1",
        "hook_points": {"n_per_concept": 16, "middle_block.1": EFFECT | {"removal_relative": 0.05}},
    },
}


def test_blocks_carry_the_numbers() -> None:
    blocks = blocks_of(REPORT)
    assert "| hat | 90.0% | 70.0% | 100.0% |" in blocks["mini"]
    assert "512 held-out prompts" in blocks["mini"]
    assert "| `a` | `middle_block.1` | 8 | 2 | 0.900 | 2.0 | 25.0% |" in blocks["saes"]
    assert "| Steer Concept, paper | 50% | 2.0 | 60 | 1.0 |" in blocks["steering"]
    assert "| Steer Features at `output_blocks.4.1` | 80% | 2.0 | 60 | 1.0 |" in blocks["steering"]
    assert "on 16 other prompts" in blocks["steering"]
    assert "| `middle_block.1` | 5% | 2.0 | 60 | 1.0 |" in blocks["steering"]


def test_only_the_inside_of_blocks_changes() -> None:
    text = "before\n<!-- figures: mini -->\nold\nold\n<!-- /figures -->\nafter\n"
    assert fill(text, {"mini": "new"}) == "before\n<!-- figures: mini -->\nnew\n<!-- /figures -->\nafter\n"


def test_every_document_has_its_blocks() -> None:
    blocks = {"mini": "MINI", "saes": "SAES", "steering": "STEERING"}
    filled = [fill(document.read_text(encoding="utf-8"), blocks) for document in DOCUMENTS]
    assert [[name for name in blocks.values() if f"\n{name}\n" in text] for text in filled] == [
        ["MINI", "SAES", "STEERING"],
        ["SAES"],
        ["MINI", "STEERING"],
    ]
