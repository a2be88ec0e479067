"""Small graphs on the bundled model, and what one run of them gave, to the bit."""

from __future__ import annotations

import copy
import io
import itertools
import urllib.parse
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from devtools.client import Client, Event, Prompt, RunResult
from devtools.server import open_url

Link = list[Any]
"""An output of a node: `[node id, number]`."""

WORDS = "a flat cartoon portrait of a smiling person with brown hair and glasses, blue background"
SAE, TEXT_SAE = "revelio_mini_up2.safetensors", "revelio_mini_text.safetensors"
MODEL: Link = ["mini", 0]
CLIP: Link = ["mini", 1]

_count = itertools.count(1)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def loaders() -> Prompt:
    """The bundled model, two of its dictionaries and two empty latents."""
    return {
        "mini": node("RevelioMiniModel"),
        "sae": node("RevelioLoadSAE", sae=SAE, hook_point=""),
        "text_sae": node("RevelioLoadSAE", sae=TEXT_SAE, hook_point=""),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=2),
    }


def branch(
    name: str, *, model: Link = MODEL, clip: Link = CLIP, negative_clip: Link = CLIP, steps: int = 6
) -> Prompt:
    """Prompts, sampler, saved latent and preview; the ids of its nodes begin with `name`."""
    return {
        f"{name} positive": node("CLIPTextEncode", clip=clip, text=WORDS),
        f"{name} negative": node("CLIPTextEncode", clip=negative_clip, text=""),
        f"{name} sampler": node(
            "KSampler", model=model, seed=11, steps=steps, cfg=3.0, sampler_name="euler", scheduler="normal",
            denoise=1.0, positive=[f"{name} positive", 0], negative=[f"{name} negative", 0],
            latent_image=["empty", 0],
        ),
        f"{name} latent": node("SaveLatent", samples=[f"{name} sampler", 0], filename_prefix="exact"),
        f"{name} decode": node("VAEDecode", samples=[f"{name} sampler", 0], vae=["mini", 2]),
        f"{name} image": node("PreviewImage", images=[f"{name} decode", 0]),
    }  # fmt: skip


def steer_features(**changes: Any) -> dict[str, Any]:
    """A Steer Features node that visibly does something, with `changes`."""
    usual = {
        "model": MODEL, "sae": ["sae", 0], "features": "glasses", "strength": -3.0, "start_percent": 0.0,
        "end_percent": 1.0, "role": "cond", "place": "usual", "mode": "push",
    }  # fmt: skip
    return node("RevelioSteerFeatures", **{**usual, **changes})


def steer_concept(**changes: Any) -> dict[str, Any]:
    """A Steer Concept node that visibly does something, with `changes`."""
    usual = {
        "clip": CLIP, "sae": ["text_sae", 0], "concept": "glasses", "strength": -2.0, "method": "contrast",
        "prompts_with": "", "prompts_without": "",
    }  # fmt: skip
    return node("RevelioSteerConcept", **{**usual, **changes})


def anew(graph: Prompt) -> Prompt:
    """The same graph for ComfyUI to do all over again: prompts, samplers and all that follows them.

    Only its loaded model stays, as it does for a user. Spaces at the end of a prompt make no token, but
    they make another input, so that nothing is taken from the cache.
    """
    graph = copy.deepcopy(graph)
    spaces = " " * next(_count)
    for entry in graph.values():
        if entry["class_type"] == "CLIPTextEncode":
            entry["inputs"]["text"] += spaces
    return graph


@dataclass(frozen=True)
class Exact:
    """What one branch gave: float latents as they left the sampler, and the pixels of its pictures."""

    latent: Tensor
    pixels: tuple[bytes, ...]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Exact)
            and torch.equal(self.latent, other.latent)
            and self.pixels == other.pixels
        )

    def __repr__(self) -> str:  # a failing comparison shows numbers and not megabytes
        return f"Exact(sum {self.latent.double().sum():.9f}, {len(self.pixels)} pictures)"


def run(client: Client, graph: Prompt, **options: Any) -> RunResult:
    """Run a graph anew; fails the test when the run does."""
    result = client.run(anew(graph), **options)
    assert result.error is None, result.error
    return result


def exact(client: Client, result: RunResult, name: str) -> Exact:
    """What the branch called `name` gave in a run, which must really have sampled it."""
    assert result.ran(f"{name} sampler"), f"{name} came from the cache"
    (place,) = result.outputs[f"{name} latent"]["latents"]
    file = open_url(f"{client.url}/view?{urllib.parse.urlencode(place)}")
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in result.images_of(f"{name} image")]
    assert pictures
    return Exact(load(file)["latent_tensor"], tuple(picture.tobytes() for picture in pictures))


def sampled_steps(event: Event, name: str) -> int:
    """How many steps the branch's sampler has done by this event; 0 for events about anything else."""
    if event.type == "progress" and event.data.get("node") == f"{name} sampler":
        return int(event.data["value"])
    return 0
