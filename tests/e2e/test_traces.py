"""Traces saved, loaded and made of images and prompts, through the real server."""

from __future__ import annotations

from typing import Any

from devtools.client import Client, Prompt

from .graphs import WORDS, branch, loaders, node, run


def top(trace: list[Any]) -> Prompt:
    """The strongest features of a trace, shown as text by ComfyUI's own node."""
    return {
        "top": node("RevelioTopFeatures", trace=trace, count=4, by="distinct", role="cond", step=-1),
        "shown": node("PreviewAny", source=["top", 1]),
    }


def test_a_saved_trace_gives_the_same_table_again(client: Client) -> None:
    graph: Prompt = loaders() | {
        "record": node("RevelioRecord", model=["mini", 0], sae=["sae", 0], hook_point=""),
        "collect": node("RevelioCollect", latent=["it sampler", 0], recorder=["record", 1]),
        "save": node("RevelioSaveTrace", trace=["collect", 1], filename_prefix="runs/e2e"),
    }
    result = run(client, graph | top(["save", 0]) | branch("it", model=["record", 0], steps=2))
    (said,) = result.outputs["save"]["text"]
    name = said.removeprefix("Saved: ")
    assert name == "runs/e2e_00001_.safetensors [output]"
    assert name in client.object_info()["RevelioLoadTrace"]["input"]["required"]["trace"][1]["options"]
    loaded = client.run({"load": node("RevelioLoadTrace", trace=name)} | top(["load", 0]))
    assert loaded.error is None
    assert loaded.outputs["shown"]["text"] == result.outputs["shown"]["text"]
    assert "#" in loaded.outputs["shown"]["text"][0]


def test_a_trace_from_elsewhere_is_refused_before_anything_runs(client: Client) -> None:
    graph = {"load": node("RevelioLoadTrace", trace="../../etc/passwd [output]")}
    result = client.run(graph | top(["load", 0]))
    assert result.error is not None
    assert "outside ComfyUI's folders" in result.error.message


def test_an_image_and_a_prompt_are_read(client: Client) -> None:
    graph: Prompt = loaders() | {
        "look": node(
            "RevelioRecordImage", model=["mini", 0], vae=["mini", 2], sae=["sae", 0], image=["it decode", 0],
            positive=["it negative", 0], timesteps="25, 200", seed=3,
        ),
        "maps": node(
            "RevelioFeatureMaps", trace=["look", 0], feature_numbers="", columns=4, role="cond", item=1,
            opacity=0.9, image=["it decode", 0],
        ),
        "read": node("RevelioRecordText", clip=["mini", 1], sae=["text_sae", 0], text=WORDS, count=2),
        "shown": node("PreviewAny", source=["read", 0]),
    }  # fmt: skip
    result = run(client, graph | branch("it", steps=2))
    assert len(result.images_of("maps")) == 1
    (table,) = result.outputs["shown"]["text"]
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:5]] == ["a", "flat", "cartoon"]
