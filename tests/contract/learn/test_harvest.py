"""Harvesting from the bundled model in ComfyUI, and that diffusers gives the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ..architectures import ARCHITECTURES

PROMPTS = [
    "a pixel art portrait, blue hair",
    "a doodle of a person with glasses",
    "an ink sketch, red background",
]
WORKFLOWS = Path(__file__).resolve().parents[3] / "workflows"
HOOKS = ("middle_block.1", "output_blocks.3.1")


class Harvester:
    """The pieces of the engine that a test needs, from one import of the pack."""

    def __init__(self, pack: Callable[[str], ModuleType], parts: tuple[Any, Any, Any]) -> None:
        self.engine = pack("comfy_revelio.training.harvest")
        self.shards = pack("comfy_revelio.training.shards")
        self.open_images = pack("comfy_revelio.training.open_images")
        self.host = pack("comfy_revelio.host.learn.comfy_host").ComfyHost(
            *parts, "mini", self.engine.SamplingSettings(height=64, width=96, steps=4)
        )

    def run(self, items: Any, out: Path, wanted: Any, **options: Any) -> dict[str, Any]:
        folders = self.engine.harvest(self.host, items, out, wanted, dtype=torch.float32, **options)
        return {name: self.shards.ShardSet(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def harvester(pack: Callable[[str], ModuleType], mini: Any) -> Harvester:
    return Harvester(pack, (mini.model, mini.clip, mini.vae))


def test_prompts_give_the_activations_of_their_sampling(
    harvester: Harvester, pack: Callable[[str], ModuleType], mini: Any, tmp_path: Path
) -> None:
    items = harvester.engine.items_of_prompts(PROMPTS)
    wanted = harvester.engine.CaptureSpec(HOOKS, steps=(0, 2))
    found = harvester.run(items, tmp_path, wanted, batch=3)
    generate = pack("comfy_revelio.host.record.generation")

    def sampled(tapped: Any) -> None:
        positive, negative = generate.encode(mini.clip, PROMPTS), generate.encode(mini.clip, [""])
        generate.sample(tapped, positive, negative, [0, 1, 2], height=64, width=96, steps=4)

    maps = pack("comfy_revelio.host.learn.in_memory").harvest(mini.model, HOOKS, sampled)
    for name, (height, width) in (("middle_block.1", (4, 6)), ("output_blocks.3.1", (8, 12))):
        shards = found[name]
        assert shards.source.grid == (height, width)
        assert shards.n_rows == 3 * 2 * height * width
        rows = shards.split(0.0)[0].all()
        for item in range(3):
            for place, step in enumerate((0, 2)):
                start = (item * 2 + place) * height * width
                here = slice(start, start + height * width)
                assert rows.item[here].unique().tolist() == [item]
                wanted_rows = maps[name][step, item].float().reshape(-1, shards.d_model)
                assert torch.allclose(rows.x[here], wanted_rows, rtol=2e-3, atol=2e-3)  # kept in float16
        assert len(rows.timestep.unique()) == 2


def test_a_second_run_adds_only_what_is_new(harvester: Harvester, tmp_path: Path) -> None:
    engine = harvester.engine
    wanted = engine.CaptureSpec(("middle_block.1",), steps=(1,))
    first = harvester.run(engine.items_of_prompts(PROMPTS[:2]), tmp_path, wanted)["middle_block.1"]
    seen: list[tuple[int, int]] = []
    again = harvester.run(
        engine.items_of_prompts(PROMPTS),
        tmp_path,
        wanted,
        progress=lambda *told: seen.append(told),
    )["middle_block.1"]
    assert seen == [(2, 3), (3, 3)]
    everything = torch.arange(first.n_rows)
    assert torch.equal(again.rows(everything).x, first.rows(everything).x)
    assert again.n_rows == first.n_rows * 3 // 2
    error = harvester.shards.BudgetReached.__mro__[1]
    with pytest.raises(error, match="kept steps"):
        harvester.run(
            engine.items_of_prompts(PROMPTS), tmp_path, engine.CaptureSpec(("middle_block.1",), steps=(2,))
        )


def test_pictures_are_noised_to_the_timesteps(harvester: Harvester, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    (pictures / "1.txt").write_text("a pixel art portrait\n")
    items = harvester.open_images.items_of_images(pictures)
    assert [item.prompt for item in items] == ["", "a pixel art portrait"]
    wanted = harvester.engine.CaptureSpec(("mid_block.attentions.0",), timesteps=(25.0, 500.0))
    shards = harvester.run(items, tmp_path / "out", wanted)["middle_block.1"]
    rows = shards.split(0.0)[0].all()
    assert sorted({round(t) for t in rows.timestep.tolist()}) == [25, 500]
    assert shards.n_rows == 2 * 2 * 4 * 6
    first, last = (rows.x[(rows.item == 0) & (rows.timestep.round() == t)] for t in (25, 500))
    assert not torch.allclose(first, last)


def test_diffusers_gives_the_same_numbers(pack: Callable[[str], ModuleType], comfyui: Path) -> None:
    """The same inputs through diffusers' UNet with the bundled weights, tapped at the papers' names."""
    parts = pack("comfy_revelio.host.mini.model").load_mini()
    harvester = Harvester(pack, parts)
    diffusers_host = pack("comfy_revelio.training.diffusers_host")
    unet = import_module("lab.train.unet_and_text_encoder").load_unet()
    names = {"middle_block.1": "mid_block.attentions.0", "output_blocks.3.1": "up_blocks.1.attentions.0"}
    items = harvester.engine.items_of_prompts(PROMPTS)
    for captured in ("output", "diff"):
        inputs: list[tuple[Any, ...]] = []

        def note(_m: Any, args: Any, kwargs: Any, inputs: list[Any] = inputs) -> None:
            inputs.append((*args[:2], kwargs["context"]))

        handle = parts[0].model.diffusion_model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            taken = list(harvester.host.run(items, harvester.engine.CaptureSpec(HOOKS, captured, steps=(1,))))
        finally:
            handle.remove()
        x, timesteps, context = (tensor.float() for tensor in inputs[1])
        wanted = harvester.engine.CaptureSpec(tuple(names.values()), captured)
        with diffusers_host.RecordedModules(unet, wanted) as recorded, torch.no_grad():
            unet(x, timesteps, encoder_hidden_states=context)
        for ours, theirs in names.items():
            here = torch.stack([one.rows for one in taken if one.hook_point == ours])
            (there,) = (call.tokens for call in recorded.calls if call.hook_point == theirs)
            # whether the prompts' half comes first in a batch is ComfyUI's business
            halves = there[: len(items)], there[-len(items) :]
            assert min(float((half - here).norm() / here.norm()) for half in halves) < 1e-4


def test_unknown_hook_points_and_empty_folders_are_named(harvester: Harvester, tmp_path: Path) -> None:
    engine = harvester.engine
    error = harvester.shards.BudgetReached.__mro__[1]
    with pytest.raises(error, match="Unknown hook point 'middel'"):
        harvester.run(engine.items_of_prompts(PROMPTS), tmp_path, engine.CaptureSpec(("middel",)))
    with pytest.raises(error, match="no images"):
        harvester.open_images.items_of_images(tmp_path)


class Counting:
    """A text encoder for a small random model: its states depend on the words, and there is one for each."""

    def __init__(self, architecture: Any) -> None:
        self.architecture = architecture

    def tokenize(self, text: str) -> list[str]:
        return text.split() or ["nothing"]

    def encode_from_tokens_scheduled(self, tokens: list[str]) -> list[list[Any]]:
        return self.architecture.prompt(len("".join(tokens)), len(tokens))


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux", "lumina2", "wan"])
def test_any_model_is_harvested_with_all_that_it_is_told(
    pack: Callable[[str], ModuleType], family: str
) -> None:
    """Pooled states, other channels, prompts of unequal lengths: in one batch as one by one."""
    architecture = ARCHITECTURES[family]
    model = architecture.build()
    engine = pack("comfy_revelio.training.harvest")
    height, width = architecture.latent[-2:]
    drawing = engine.SamplingSettings(height=height * 8, width=width * 8, steps=2, cfg=2.0)
    host = pack("comfy_revelio.host.learn.comfy_host").ComfyHost(
        model, Counting(architecture), None, family, drawing
    )
    wanted = engine.CaptureSpec((next(iter(architecture.points)),), steps=(1,))
    items = engine.items_of_prompts(["a red hat", "a blue hat", "a very long prompt"])
    together = list(host.run(items, wanted))
    alone = [taken for item in items for taken in host.run([item], wanted)]
    assert [taken.item for taken in together] == [taken.item for taken in alone]
    assert {taken.item for taken in together} == {0, 1, 2}
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one.rows, other.rows, rtol=1e-3, atol=1e-3 * float(other.rows.abs().max()))
    assert not torch.allclose(together[0].rows, together[1].rows, rtol=1e-2)


FULL_SIZE: dict[str, dict[str, Any]] = {
    "12_train_on_sd15": {"model_channels": 320, "channel_mult": [1, 2, 4, 4], "context_dim": 768,
        "num_heads": 8, "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1},
    "13_train_on_sdxl": {"model_channels": 320, "channel_mult": [1, 2, 4], "context_dim": 2048,
        "num_head_channels": 64, "use_linear_in_transformer": True, "num_classes": "sequential",
        "adm_in_channels": 2816, "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10},
}  # fmt: skip
"""The UNets of the models that workflows name, in full size but without weights."""


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_workflows_for_other_models_name_a_place_with_attention(
    pack: Callable[[str], ModuleType], name: str
) -> None:
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    settings = FULL_SIZE[name]
    network = UNetModel(
        image_size=32, in_channels=4, out_channels=4, use_spatial_transformer=True,
        num_res_blocks=[2] * len(settings["channel_mult"]), device="meta",
        operations=comfy.ops.disable_weight_init, **settings,
    )  # fmt: skip
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    (harvest,) = (node for node in graph["nodes"] if node["type"] == "RevelioHarvest")
    place = pack("comfy_revelio.hookpoints").resolve(network, harvest["widgets_values"][1])
    block = network.get_submodule(place.name)
    assert type(block).__name__ == "SpatialTransformer" and block.in_channels == 1280
