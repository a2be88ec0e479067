"""Conditioning: steer what a text encoder has already encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .sockets import Sae, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Clip, Conditioning
    from ..comfy_revelio.host.sae_files import SAEHandle
    from ..comfy_revelio.host.text.concept import Method
    from ..comfy_revelio.steering.prompt_states import TokenScope


class RevelioSteerConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioSteerConditioning",
            display_name="Steer Conditioning (Revelio)",
            category="Revelio/Steer",
            description="Removes a concept from an encoded prompt (a conditioning), or adds the concept. "
            "This works only if the conditioning contains the output of the layer that the SAE reads, as "
            "with SDXL. Otherwise use Steer Concept before encoding.",
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The conditioning to steer. The conditioning you connect is not changed.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip="The CLIP that encoded the conditioning. It is used to look up the concept.",
                ),
                Sae.Input(
                    "sae", tooltip="An SAE trained on the layer whose output the conditioning contains."
                ),
                io.String.Input(
                    "concept",
                    default="glasses",
                    tooltip="The concept, written as in Steer Concept. Separate several concepts with "
                    "semicolons: glasses; hat:-0.5.",
                ),
                io.Float.Input(
                    "strength",
                    default=-1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Below 0 removes the concept, above 0 adds it, 0 changes nothing. With the "
                    "paper method, use the opposite strength for the negative prompt.",
                ),
                io.Combo.Input(
                    "method",
                    options=["contrast", "paper"],
                    default="contrast",
                    tooltip="contrast: find the concept's own features and change only those (recommended). "
                    "paper: use the formula of the Concept Steerers paper.",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The prompt that was encoded. With it, the node can leave start, end and padding "
                    "tokens unchanged. Empty = only the first token is left unchanged.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=["auto", "content", "all"],
                    default="auto",
                    optional=True,
                    tooltip="Which tokens to change, as in Steer Concept. The choice content needs the text "
                    "input.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning_out", display_name="CONDITIONING", tooltip="For the sampler."
                ),
                io.String.Output(
                    "found", display_name="found", tooltip="The features found for the concept."
                ),
            ],
        )
        return searchable(schema, "concept", "slider", "conditioning steering", "remove concept")

    @classmethod
    def execute(
        cls,
        conditioning: Conditioning,
        clip: Clip,
        sae: SAEHandle,
        concept: str,
        strength: float,
        method: Method,
        text: str = "",
        tokens: TokenScope = "auto",
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.text.concept import ConceptPrompts
        from ..comfy_revelio.host.text.conditioning import steer_conditioning

        return io.NodeOutput(
            *steer_conditioning(
                conditioning, clip, sae, ConceptPrompts(concept), strength, method, tokens=tokens, text=text
            )
        )


NODES: list[type[io.ComfyNode]] = [RevelioSteerConditioning]
