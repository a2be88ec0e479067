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
            description="Removes a concept from a finished conditioning, or adds it. This works if the "
            "conditioning holds the very layer that the SAE reads, as in SDXL. Otherwise use Steer Concept "
            "before encoding.",
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The conditioning to steer. The conditioning you connect is not changed.",
                ),
                io.Clip.Input("clip", tooltip="The CLIP that encoded it, used to look up the concept."),
                Sae.Input("sae", tooltip="An SAE of the layer that the conditioning holds."),
                io.String.Input(
                    "concept",
                    default="glasses",
                    tooltip="The concept, as in Steer Concept. Several: glasses; hat:-0.5.",
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
                    tooltip="contrast: find the concept's own features and change only these (recommended). "
                    "paper: the formula of Concept Steerers.",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The text that was encoded, so that start, end and padding tokens can be left "
                    "alone. Empty = only the first token is left alone.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=["auto", "content", "all"],
                    default="auto",
                    optional=True,
                    tooltip="Which tokens to change, as in Steer Concept. content needs the text.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning_out", display_name="CONDITIONING", tooltip="For the sampler."
                ),
                io.String.Output("found", display_name="found", tooltip="Which features were found."),
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
