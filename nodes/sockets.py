"""The pack's own socket types. Their names are part of saved workflows and never change."""

from __future__ import annotations

from comfy_api.latest import io

Sae = io.Custom("REVELIO_SAE")
Recorder = io.Custom("REVELIO_RECORDER")
TraceSocket = io.Custom("REVELIO_TRACE")
Features = io.Custom("REVELIO_FEATURES")
ActivationsSocket = io.Custom("REVELIO_ACTIVATIONS")

ROLES = ["cond", "uncond", "cond2"]
ROLE_TOOLTIP = (
    "Whose features: cond = the positive prompt, uncond = the negative prompt, cond2 = a second positive one."
)
HOOK_POINT_TOOLTIP = (
    "Where in the model: a name such as middle_block.1 or mid_block.attentions.0. Empty = the place the SAE "
    "was trained for."
)
