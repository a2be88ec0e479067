"""Steer: turn features of the model, or a concept of the prompt, up or down."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..comfy_revelio.steering.intervention import MODES, PLACES, RAMPS, ROLES, UNITS
from .sockets import Features, Sae, searchable


class RevelioSteerFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioSteerFeatures",
            display_name="Steer Features (Revelio)",
            category="Revelio/Steer",
            description="Gives back the model with SAE features turned up or down while it samples. "
            "Negative strength takes features out where they fire, positive strength puts them in. Other "
            "branches that use the same model are not affected; strength 0 changes nothing at all.",
            inputs=[
                io.Model.Input("model", tooltip="The model to steer. It is not changed itself."),
                Sae.Input("sae", tooltip="The SAE that the features belong to."),
                io.String.Input(
                    "features",
                    default="",
                    tooltip="A concept of the SAE such as glasses, or feature numbers, separated by commas: "
                    "glasses or 1203, 77:0.5. A number after a colon is a weight.",
                ),
                io.Float.Input(
                    "strength",
                    default=-2.0,
                    min=-1000.0,
                    max=1000.0,
                    step=0.05,
                    tooltip="Below 0: out (-1 = what they put in; a concept wants about -2, as the rest of "
                    "the model puts it back). Above 0: in, at this many times the usual amount (a concept "
                    "about 1.5, and only where it is not there yet). 0: no change. What 1 means: see unit.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the denoising to begin: 0 = first step. Counted as in ComfyUI's "
                    "ControlNet nodes.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the denoising to stop: 1 = last step included.",
                ),
                io.Combo.Input(
                    "role",
                    options=list(ROLES),
                    default="cond",
                    tooltip="Whom to steer: cond = the positive prompt's half (best), uncond = the negative "
                    "prompt's, both, mirrored = cond as said and uncond the other way round (stronger).",
                ),
                io.Combo.Input(
                    "place",
                    options=list(PLACES),
                    default="usual",
                    tooltip="Where to put features in: usual = where the concept or feature usually sits in "
                    "the picture, everywhere = all over. With a mask single features go all over it.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="push",
                    tooltip="push: as described at strength. add: everywhere, whether it fires or not. "
                    "scale: multiply where it fires (1 doubles, -1 = off). set: this value everywhere. "
                    "clamp: at most this value. ablate: off where it fires (1). only: all other features off "
                    "(1). replace: the block puts in these features alone. ablate_block: it puts in nothing.",
                ),
                Features.Input(
                    "selected",
                    optional=True,
                    tooltip="Features from Top Features or the Explorer, or a concept from Find Concept, in "
                    "addition to the written ones. Their strengths are multiplied with this one: set it to 1 "
                    "for the Explorer.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Steer only where the mask is white. Any size; it is fitted to the picture.",
                ),
                io.Combo.Input(
                    "unit",
                    options=list(UNITS),
                    default="mean",
                    optional=True,
                    tooltip="What strength 1 means where something is put in: mean = the feature's mean "
                    "value when it fires (sdxl-unbox), code = 1 in the feature's own numbers, norm = as long "
                    "as a mean token of the picture (the Flux paper; try 0.1 to 1).",
                ),
                io.Combo.Input(
                    "ramp",
                    options=list(RAMPS),
                    default="none",
                    optional=True,
                    tooltip="How steering grows between start and end percent: none = full all the time, or "
                    "linearly in, out, or in and out.",
                ),
            ],
            outputs=[io.Model.Output("model_out", display_name="MODEL", tooltip="Connect to the sampler.")],
        )
        return searchable(
            schema, "concept", "slider", "steering", "remove concept", "edit model", "sparse autoencoder"
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        sae: Any,
        features: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        role: str,
        place: str,
        mode: str,
        selected: Any = None,
        mask: Any = None,
        unit: str = "mean",
        ramp: str = "none",
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.steering import steer
        from ..comfy_revelio.steering import Intervention, parse_selection

        # only there do concepts say where they belong; elsewhere their names stand for single features
        itself = (mode, place, unit) == ("push", "usual", "mean")
        concepts = sae.dictionary.concepts if itself else None
        connected = None if selected is None else selected.resolved(sae.dictionary, concepts)
        chosen = parse_selection(features, sae.dictionary, concepts).with_others(connected)
        # only pushing is one thing above 0 and another below
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
            description="Takes a concept such as glasses out of the prompts, or puts it in, by steering the "
            "text encoder. Use the two CLIPs for the positive and the negative prompt. The CLIP that you "
            "connect is not changed.",
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP whose text encoder is steered."),
                Sae.Input("sae", tooltip="An SAE of a text encoder layer."),
                io.String.Input(
                    "concept",
                    default="glasses",
                    tooltip="The concept as a short phrase: glasses, or blue hair. Of a phrase of several "
                    "words only what it adds to its last word is steered: blue hair is told from hair. "
                    "Several concepts, with weights if you like: glasses; hat:-0.5. contrast takes commas "
                    "as well.",
                ),
                io.Float.Input(
                    "strength",
                    default=-1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Below 0 removes the concept (-1 = off, -2 = twice that), above 0 puts it in, 0 "
                    "changes nothing. With the paper method values from -1 to 1 are usual.",
                ),
                io.Combo.Input(
                    "method",
                    options=["contrast", "paper"],
                    default="contrast",
                    tooltip="contrast: finds the concept's own features and changes only these (best). "
                    "paper: the formula of Concept Steerers.",
                ),
                io.String.Input(
                    "prompts_with",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="For contrast, optional: prompts that name the concept, one a line. Empty = "
                    "neutral sentences.",
                ),
                io.String.Input(
                    "prompts_without",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="For contrast, optional: similar prompts that do not name it, one a line. Empty "
                    "= neutral sentences.",
                ),
                io.Combo.Input(
                    "negative_prompt",
                    options=["auto", "none", "mirrored", "same"],
                    default="auto",
                    optional=True,
                    tooltip="What the CLIP for the negative prompt does: none = nothing, mirrored = the "
                    "opposite, same = the same. auto = none for contrast, mirrored for paper.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=["auto", "content", "all"],
                    default="auto",
                    optional=True,
                    tooltip="Which tokens change: content = the prompt's own words, all = also start, end "
                    "and padding. auto = all for paper; for contrast content where something is put in.",
                ),
            ],
            outputs=[
                io.Clip.Output("positive", display_name="positive CLIP", tooltip="For the positive prompt."),
                io.Clip.Output("negative", display_name="negative CLIP", tooltip="For the negative prompt."),
                io.String.Output(
                    "found", display_name="found", tooltip="Which features were found, in plain words."
                ),
            ],
        )
        return searchable(schema, "concept", "slider", "prompt steering", "remove concept", "negative")

    @classmethod
    def execute(
        cls,
        clip: Any,
        sae: Any,
        concept: str,
        strength: float,
        method: str,
        prompts_with: str = "",
        prompts_without: str = "",
        negative_prompt: str = "auto",
        tokens: str = "auto",
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.text.concept import ConceptPrompts, steer_concept

        prompts = ConceptPrompts(concept, prompts_with, prompts_without)
        return io.NodeOutput(
            *steer_concept(clip, sae, prompts, strength, method, negative=negative_prompt, tokens=tokens)
        )


NODES: list[Any] = [RevelioSteerFeatures, RevelioSteerConcept]
