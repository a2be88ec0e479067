"""What a user can get wrong: one sentence at the node to blame, and the next prompt runs normally."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from devtools.client import Client, Prompt, RunError
from devtools.server import Server

from .graphs import SAE, TEXT_SAE, branch, exact, loaders, node, run, steer_concept, steer_features


def _small(**entries: dict[str, object]) -> Prompt:
    """Loaders, with entries replaced or added, and an empty latent that is sampled in no time."""
    graph = loaders()
    graph["empty"]["inputs"].update(width=64, height=64, batch_size=1)
    return graph | entries


def _loading(sae: str, hook_point: str = "") -> dict[str, object]:
    return node("RevelioLoadSAE", sae=sae, hook_point=hook_point)


def _steered(**entries: dict[str, object]) -> Prompt:
    """A graph whose sampler uses steered features."""
    steer = {"steer": steer_features()}
    return _small(**(steer | entries)) | branch("there", model=["steer", 0], steps=2)


def _worded(**entries: dict[str, object]) -> Prompt:
    """A graph whose prompts are steered."""
    steer = {"steer": steer_concept()}
    clips = {"clip": ["steer", 0], "negative_clip": ["steer", 1]}
    return _small(**(steer | entries)) | branch("there", **clips, steps=2)


def _recorded(hook_point: str = "", numbers: str = "", **entries: dict[str, object]) -> Prompt:
    """A graph that records and draws what it recorded."""
    observing = {
        "record": node("RevelioRecord", model=["mini", 0], sae=["sae", 0], hook_point=hook_point),
        "collect": node("RevelioCollect", latent=["there sampler", 0], recorder=["record", 1]),
        "maps": node(
            "RevelioFeatureMaps", trace=["collect", 1], feature_numbers=numbers, columns=2, role="cond",
            item=0, opacity=0.9,
        ),
    }  # fmt: skip
    return _small(**(observing | entries)) | branch("there", model=["record", 0], steps=2)


NAN = float("nan")
CASES: dict[str, tuple[Prompt, str, tuple[str, ...]]] = {
    "no such SAE file": (
        _steered(sae=_loading("missing.safetensors")),
        "sae",
        (r'no SAE file "missing\.safetensors"', r"models.sae", "choose one"),
    ),
    "a file that is no safetensors": (
        _steered(sae=_loading("text.safetensors")),
        "sae",
        (r"text\.safetensors",),
    ),
    "a file that was cut off": (_steered(sae=_loading("cut.safetensors")), "sae", (r"cut\.safetensors",)),
    "a file of other tensors": (
        _steered(sae=_loading("other.safetensors")),
        "sae",
        (r"other\.safetensors", "match no known layout of a dictionary"),
    ),
    "a file with NaN in it": (
        _steered(sae=_loading("nan.safetensors")),
        "sae",
        (r"nan\.safetensors", "W_dec", "not finite"),
    ),
    "recording where the width differs": (
        _recorded(hook_point="output_blocks.3.1"),
        "record",
        (r"output_blocks\.3\.1", "width 192", "width 96", r"middle_block\.1"),
    ),
    "steering where the width differs": (
        _steered(sae=_loading(SAE, "output_blocks.3.1")),
        "steer",
        (r"output_blocks\.3\.1", "width 192", "width 96", r"middle_block\.1"),
    ),
    "recording at an unknown hook point": (
        _recorded(hook_point="midle_block.1"),
        "record",
        (r"Unknown hook point 'midle_block\.1'", r"middle_block\.1"),
    ),
    "steering at an unknown hook point": (
        _steered(sae=_loading(SAE, "nowhere")),
        "steer",
        ("Unknown hook point 'nowhere'", r"_blocks?\.\d"),
    ),
    "a feature number out of range": (
        _steered(steer=steer_features(features="3, 999999")),
        "steer",
        ("999999", r"0 to \d+"),
    ),
    "a feature number out of range, to draw": (_recorded(numbers="999999"), "maps", ("999999", r"0 to \d+")),
    "a label that nothing has": (
        _steered(steer=steer_features(features="glasess")),
        "steer",
        ("'glasess'", r"0 to \d+", "glasses"),
    ),
    "strength NaN": (_steered(steer=steer_features(strength=NAN)), "steer", ("strength", "finite", "nan")),
    "strength NaN, concept": (
        _worded(steer=steer_concept(strength=NAN)),
        "steer",
        ("strength", "finite", "nan"),
    ),
    "start after end": (
        _steered(steer=steer_features(start_percent=0.8, end_percent=0.2)),
        "steer",
        ("[Ss]tart", r"0\.8", r"0\.2"),
    ),
    "features of a text SAE": (
        _steered(sae=_loading(TEXT_SAE), steer=steer_features(features="3")),
        "steer",
        (re.escape(TEXT_SAE), "text encoder", "Steer Concept"),
    ),
    "a concept in an image SAE": (_worded(text_sae=_loading(SAE)), "steer", (re.escape(SAE), "text encoder")),
    "no concept": (_worded(steer=steer_concept(concept=" ")), "steer", ("concept", "write")),
}


@pytest.fixture(scope="module", autouse=True)
def broken_files(server: Server, pack: Path) -> None:
    """SAE files that are none, where a user would put them."""
    folder = server.log.parent / "models" / "sae"
    folder.mkdir(parents=True, exist_ok=True)
    good = pack / "sae_weights" / SAE
    (folder / "text.safetensors").write_text("This is no file of tensors.")
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    save_file({"weight": torch.zeros(3)}, folder / "other.safetensors")
    with safe_open(str(good), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        tensors["W_dec"][0, 0] = NAN
        save_file(tensors, folder / "nan.safetensors", metadata=file.metadata())


@pytest.fixture
def next_prompt_runs(client: Client) -> Callable[[], None]:
    def check() -> None:
        run(client, _steered())

    return check


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_in_a_sentence(
    client: Client, next_prompt_runs: Callable[[], None], case: str
) -> None:
    graph, where, patterns = CASES[case]
    error = client.run(graph).error
    assert error is not None, "it ran"
    assert error.node_id == where
    assert is_a_sentence(error), error
    for pattern in patterns:
        assert re.search(pattern, error.message), f"{pattern!r} is not in {error.message!r}"
    next_prompt_runs()


def test_a_mask_of_any_size_is_fitted(client: Client) -> None:
    """A white mask of an odd size and shape does what one of the picture's size does."""
    results = []
    for width, height in ((64, 64), (53, 37)):
        mask = node("SolidMask", value=1.0, width=width, height=height)
        result = run(client, _steered(mask=mask, steer=steer_features(strength=3.0, mask=["mask", 0])))
        results.append(exact(client, result, "there"))
    assert results[0] == results[1]
    plain = exact(client, run(client, _small() | branch("there", steps=2)), "there")
    assert plain != results[0]


def is_a_sentence(error: RunError) -> bool:
    """Our own words, in one line with a full stop; a file that was refused before the run counts too."""
    ours = error.type.endswith(".RevelioError") or error.type == "custom_validation_failed"
    return ours and "\n" not in error.message and error.message.endswith(".") and "Error" not in error.message
