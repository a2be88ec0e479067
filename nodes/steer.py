"""Steer: turn features of the model, or a concept of the prompt, up or down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..comfy_revelio.steering.intervention import PLACEMENTS, RAMPS, ROLES
from ..comfy_revelio.steering.modes import MODES, UNITS
from .sockets import Features, Sae, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Clip, Mask, Model
    from ..comfy_revelio.host.sae_files import SAEHandle
    from ..comfy_revelio.host.text.concept import Method
    from ..comfy_revelio.steering import Selection
    from ..comfy_revelio.steering.intervention import Placement, Ramp, Role
    from ..comfy_revelio.steering.modes import Mode, Unit
    from ..comfy_revelio.steering.prompt_states import Negative, TokenScope


class RevelioSteerFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioSteerFeatures",
            display_name="Steer Features (Revelio)",
            category="Revelio/Steer",
            description="Turns SAE features or concepts up or down while the model samples. Negative "
            "strength removes them where they fire; positive strength adds them. Other branches that use "
            "the same model are not affected, and strength 0 changes nothing.",
            inputs=[
                io.Model.Input("model", tooltip="The model to steer. The model you connect is not changed."),
                Sae.Input("sae", tooltip="The SAE that the features belong to."),
                io.String.Input(
                    "features",
                    default="",
                    tooltip="Concepts of the SAE or feature numbers, separated by commas. For example: "
                    "glasses, or 1203, 77:0.5. The number after a colon is a weight.",
                ),
                io.Float.Input(
                    "strength",
                    default=-2.0,
                    min=-1000.0,
                    max=1000.0,
                    step=0.05,
                    tooltip="Below 0 removes: -1 cancels what the features contribute. For a concept, use "
                    "about -2, because the rest of the model partly restores the concept. Above 0 adds that "
                    "many times the usual amount; for a concept, use about 1.5. 0 changes nothing. The unit "
                    "input defines what 1 means.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When to start steering: 0 = at the first step. Percentages mean the same as in "
                    "ComfyUI's ControlNet nodes.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When to stop steering: 1 = after the last step.",
                ),
                io.Combo.Input(
                    "role",
                    options=list(ROLES),
                    default="cond",
                    tooltip="Which half of the guidance to steer: cond = the positive prompt (usually best), "
                    "uncond = the negative prompt, both, or mirrored = cond with the given strength and "
                    "uncond with the opposite strength (a stronger effect).",
                ),
                io.Combo.Input(
                    "place",
                    display_name="where to add",
                    options=list(PLACEMENTS),
                    default="usual",
                    tooltip="Where to add features: usual = where the concept or feature usually appears in "
                    "the image, everywhere = in the whole image. With a mask, individual features are added "
                    "everywhere inside the mask.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="push",
                    tooltip="What strength does. push: as described in the tooltip of strength. add: add the "
                    "feature everywhere, whether it fires or not. scale: multiply the feature where it fires "
                    "(1 doubles it, -1 switches it off). set: set the feature to this value everywhere. "
                    "clamp: limit the feature to at most this value. ablate: switch the feature off where it "
                    "fires (strength 1). only: switch off all other features (strength 1). replace: the "
                    "block contributes only these features. ablate_block: the block contributes nothing.",
                ),
                Features.Input(
                    "selected",
                    optional=True,
                    tooltip="Features from Top Features or Explorer, or a concept from Find Concept, used "
                    "together with the features written in this node. Their strengths are multiplied by this "
                    "node's strength, which should be 1 for features from Explorer.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Steer only where the mask is white. A mask of any size works, because it is "
                    "resized to fit.",
                ),
                io.Combo.Input(
                    "unit",
                    options=list(UNITS),
                    default="mean",
                    optional=True,
                    tooltip="What strength 1 means when a feature is added: mean = the feature's mean value "
                    "when it fires (sdxl-unbox), code = an activation of 1, norm = a vector as long as the "
                    "image's mean token (the Flux paper; try 0.1 to 1).",
                ),
                io.Combo.Input(
                    "ramp",
                    options=list(RAMPS),
                    default="none",
                    optional=True,
                    tooltip="How the strength changes from start to end percent: none = it stays constant. "
                    "The other choices fade the strength in, out, or in and out, always linearly.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model_out", display_name="MODEL", tooltip="The steered model. Connect it to the sampler."
                )
            ],
        )
        return searchable(
            schema, "concept", "slider", "steering", "remove concept", "edit model", "sparse autoencoder"
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        sae: SAEHandle,
        features: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        role: Role,
        place: Placement,
        mode: Mode,
        selected: Selection | None = None,
        mask: Mask | None = None,
        unit: Unit = "mean",
        ramp: Ramp = "none",
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.steering import steer
        from ..comfy_revelio.steering import Intervention, parse_selection

        # with these settings, a concept's name means the whole concept; with any others, only its features
        itself = (mode, place, unit) == ("push", "usual", "mean")
        concepts = sae.dictionary.concepts if itself else None
        connected = None if selected is None else selected.resolved(sae.dictionary, concepts)
        chosen = parse_selection(features, sae.dictionary, concepts).with_others(connected)
        # push uses different formulas for strengths above and below 0
        parts = chosen.by_sign(strength) if mode == "push" else [(chosen, strength)]
        for part, part_strength in parts:
            intervention = Intervention(
                sae.dictionary,
                part,
                part_strength,
                mode=mode,
                place=place,
                mask=mask,
                start_percent=start_percent,
                end_percent=end_percent,
                role=role,
                unit=unit,
                ramp=ramp,
            )
            model = steer(model, intervention, sae)
        return io.NodeOutput(model)


class RevelioSteerConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioSteerConcept",
            display_name="Steer Concept (Revelio)",
            category="Revelio/Steer",
            description="Removes a concept such as glasses from the prompt, or adds it, by steering the text "
            "encoder. Use the first CLIP output for the positive prompt and the second for the negative "
            "prompt. The CLIP you connect is not changed.",
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP whose text encoder is steered."),
                Sae.Input("sae", tooltip="An SAE trained on a layer of the text encoder."),
                io.String.Input(
                    "concept",
                    default="glasses",
                    tooltip="The concept as a word or short phrase, such as glasses or blue hair. For a "
                    "phrase, only the meaning that it adds to its last word is steered: blue hair does not "
                    "affect other hair. Separate several concepts, with or without weights, by semicolons: "
                    "glasses; hat:-0.5. With the method contrast, commas work too.",
                ),
                io.Float.Input(
                    "strength",
                    default=-1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Below 0 removes the concept (-1 = off, -2 = twice as strongly), above 0 adds "
                    "it, and 0 changes nothing. For the paper method, -1 to 1 is usual.",
                ),
                io.Combo.Input(
                    "method",
                    options=["contrast", "paper"],
                    default="contrast",
                    tooltip="contrast: find the concept's own features and change only those (recommended). "
                    "paper: use the formula of the Concept Steerers paper.",
                ),
                io.String.Input(
                    "prompts_with",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="For contrast, optional: prompts that name the concept, one per line. Empty = "
                    "neutral sentences.",
                ),
                io.String.Input(
                    "prompts_without",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="For contrast, optional: similar prompts without the concept, one per line. "
                    "Empty = neutral sentences.",
                ),
                io.Combo.Input(
                    "negative_prompt",
                    options=["auto", "none", "mirrored", "same"],
                    default="auto",
                    optional=True,
                    tooltip="How to steer the CLIP for the negative prompt: none = not at all, mirrored = in "
                    "the opposite direction, same = like the CLIP for the positive prompt. auto = none for "
                    "contrast, mirrored for paper.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=["auto", "content", "all"],
                    default="auto",
                    optional=True,
                    tooltip="Which tokens to change: content = the words of the prompt, all = also the "
                    "start, end and padding tokens. auto = all for paper; for contrast, content when adding "
                    "a concept and all when removing one.",
                ),
            ],
            outputs=[
                io.Clip.Output(
                    "positive",
                    display_name="positive CLIP",
                    tooltip="The CLIP for encoding the positive prompt.",
                ),
                io.Clip.Output(
                    "negative",
                    display_name="negative CLIP",
                    tooltip="The CLIP for encoding the negative prompt.",
                ),
                io.String.Output(
                    "found", display_name="found", tooltip="A readable list of the features that were found."
                ),
            ],
        )
        return searchable(schema, "concept", "slider", "prompt steering", "remove concept", "negative")

    @classmethod
    def execute(
        cls,
        clip: Clip,
        sae: SAEHandle,
        concept: str,
        strength: float,
        method: Method,
        prompts_with: str = "",
        prompts_without: str = "",
        negative_prompt: Negative = "auto",
        tokens: TokenScope = "auto",
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.text.concept import ConceptPrompts, steer_concept

        prompts = ConceptPrompts(concept, prompts_with, prompts_without)
        return io.NodeOutput(
            *steer_concept(clip, sae, prompts, strength, method, negative=negative_prompt, tokens=tokens)
        )


NODES: list[type[io.ComfyNode]] = [RevelioSteerFeatures, RevelioSteerConcept]
