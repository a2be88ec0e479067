"""Shared by several families of nodes: the pack's socket types, common inputs and tooltips.

Saved workflows contain the names of socket types, so these names never change.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

Sae = io.Custom("REVELIO_SAE")
Recorder = io.Custom("REVELIO_RECORDER")
TraceSocket = io.Custom("REVELIO_TRACE")
Features = io.Custom("REVELIO_FEATURES")
WordsSocket = io.Custom("REVELIO_WORDS")
ActivationsSocket = io.Custom("REVELIO_ACTIVATIONS")

ROLES = ["cond", "uncond", "cond2"]
ROLE_TOOLTIP = (
    "Whose features to read: cond = the positive prompt, uncond = the negative prompt, cond2 = a second "
    "positive prompt."
)
HOOK_POINT_TOOLTIP = (
    "The layer to record, such as middle_block.1 or mid_block.attentions.0. Enter ? to list all names. "
    "Empty = the layer the SAE was trained on."
)


def searchable(schema: io.Schema, *words: str) -> io.Schema:
    """Add words by which ComfyUI's search also finds the node; ComfyUI before 0.11 ignores them."""
    schema.search_aliases = list(words)
    return schema


def sampling_inputs(steps: int = 20, cfg: float = 3.0) -> list[Any]:
    """Return the inputs that set how images are generated."""
    return [
        io.Int.Input(
            "width", default=128, min=16, max=8192, step=8, tooltip="Width of the images in pixels."
        ),
        io.Int.Input(
            "height", default=128, min=16, max=8192, step=8, tooltip="Height of the images in pixels."
        ),
        io.Int.Input("steps", default=steps, min=1, max=1000, tooltip="Denoising steps for each image."),
        io.Float.Input(
            "cfg", default=cfg, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale, as in KSampler."
        ),
    ]
