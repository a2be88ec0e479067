"""What is not steered does not change by a single bit: float latents and pixels, through the real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from devtools.client import Client, Event, Prompt

from .graphs import (
    SAE,
    Exact,
    branch,
    exact,
    loaders,
    node,
    run,
    sampled_steps,
    steer_concept,
    steer_features,
)

NO_MAP = "middle_block.0.emb_layers.1"
BY_CONCEPT = {"clip": ["steer", 0], "negative_clip": ["steer", 1]}


@pytest.fixture(scope="module")
def plain(client: Client) -> Exact:
    """The pictures of a graph that has none of our nodes but the one that loads the model."""
    return exact(client, run(client, _only("plain")), "plain")


def _only(name: str) -> Prompt:
    graph = loaders() | branch(name)
    return {key: entry for key, entry in graph.items() if "sae" not in key}


def test_the_same_graph_gives_the_same_bits(client: Client, plain: Exact) -> None:
    """The ground of all comparisons here."""
    assert exact(client, run(client, _only("plain")), "plain") == plain


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"strength": 0.0}, True),
        ({"strength": 0.0, "mode": "add", "place": "everywhere", "role": "both"}, True),
        ({"strength": 3.0, "features": ""}, True),
        ({"strength": 3.0, "start_percent": 0.5, "end_percent": 0.5}, True),
        ({"strength": 3.0}, False),
    ],
    ids=["strength 0", "strength 0, other settings", "no features", "no steps", "steered"],
)
def test_steer_features_at_zero(client: Client, plain: Exact, changes: dict[str, Any], same: bool) -> None:
    graph = loaders() | {"steer": steer_features(**changes)} | branch("there", model=["steer", 0])
    assert (exact(client, run(client, graph), "there") == plain) is same


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"strength": 0.0}, True),
        ({"strength": 0.0, "method": "paper"}, True),
        ({"strength": -2.0}, False),
        ({"strength": 0.5, "method": "paper"}, False),
    ],
    ids=["strength 0", "strength 0, paper", "steered", "steered, paper"],
)
def test_steer_concept_at_zero(client: Client, plain: Exact, changes: dict[str, Any], same: bool) -> None:
    graph = loaders() | {"steer": steer_concept(**changes)} | branch("there", **BY_CONCEPT)
    assert (exact(client, run(client, graph), "there") == plain) is same


def _features_beside() -> Prompt:
    return {"steer": steer_features(strength=3.0)} | branch("beside", model=["steer", 0])


def _concept_beside() -> Prompt:
    return {"steer": steer_concept(strength=-2.0)} | branch("beside", **BY_CONCEPT)


def _both_beside() -> Prompt:
    steers = {"steer": steer_concept(strength=1.0), "more": steer_features(strength=-3.0)}
    return steers | branch("beside", model=["more", 0], **BY_CONCEPT)


def _recorder_beside() -> Prompt:
    record = {"record": node("RevelioRecord", model=["mini", 0], sae=["sae", 0], hook_point="")}
    return record | branch("beside", model=["record", 0])


@pytest.mark.parametrize("beside", [_features_beside, _concept_beside, _both_beside])
@pytest.mark.parametrize("order", [("plain", "beside"), ("beside", "plain")], ids=" then ".join)
def test_an_unsteered_branch_beside_a_steered_one(
    client: Client, plain: Exact, beside: Callable[[], Prompt], order: tuple[str, str]
) -> None:
    first, second = order
    graph = loaders() | branch("plain") | beside()
    # an empty latent again, but one that ComfyUI cannot have before the first sampler is through
    graph["nothing"] = node("LatentMultiply", samples=[f"{first} sampler", 0], multiplier=0.0)
    graph[f"{second} sampler"]["inputs"]["latent_image"] = ["nothing", 0]
    result = run(client, graph)
    assert exact(client, result, "plain") == plain
    assert exact(client, result, "beside") != plain


def test_recording_changes_nothing(client: Client, plain: Exact) -> None:
    result = run(client, loaders() | _recorder_beside() | branch("plain"))
    assert exact(client, result, "plain") == plain
    assert exact(client, result, "beside") == plain


@pytest.mark.parametrize(
    ("failing", "broken"),
    [
        ("steer", {"steer": steer_features(features="999999")}),
        ("steer", {"steer": steer_features(strength=float("nan"))}),
        # a module that gives neither a map nor tokens, which the hook on it finds out
        (
            "broken sampler",
            {"steer": steer_features(), "sae": node("RevelioLoadSAE", sae=SAE, hook_point=NO_MAP)},
        ),
    ],
    ids=["a feature out of range", "a strength that is no number", "inside a model call"],
)
def test_after_an_error(client: Client, plain: Exact, failing: str, broken: Prompt) -> None:
    result = client.run(loaders() | broken | branch("broken", model=["steer", 0]))
    assert result.error is not None and result.error.node_id == failing
    assert exact(client, run(client, _only("plain")), "plain") == plain


@pytest.mark.parametrize("beside", [_features_beside, _concept_beside, _recorder_beside])
def test_after_an_interrupt(client: Client, plain: Exact, beside: Callable[[], Prompt]) -> None:
    """In the middle of the sampling, when a tapped model is between two of its calls or inside one."""
    graph = loaders() | beside()
    graph["beside sampler"]["inputs"]["steps"] = 400
    reached: list[int] = []

    def stop(event: Event) -> None:
        if not reached and (steps := sampled_steps(event, "beside")) >= 3:
            reached.append(steps)
            client.interrupt()

    result = client.run(graph, on_event=stop)
    assert result.error is not None and result.error.type == "interrupted"
    assert reached
    assert exact(client, run(client, _only("plain")), "plain") == plain
