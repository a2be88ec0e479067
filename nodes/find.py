"""Find: which features stand for something, choosing them, and giving them names."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .sockets import ROLE_TOOLTIP, ROLES, Features, Sae, TraceSocket, sampling_inputs, searchable

MOST_FEATURES = 64


class RevelioFindFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioFindFeatures",
            display_name="Find Features (Revelio)",
            category="Revelio/Find",
            description="Which features stand for something: those that tell runs with it from runs without "
            "it, or the inside of a mask from the outside. Looks at every recorded place and step at once, "
            "and shows where and when in the model the concept is clearest, which is where to begin "
            "steering.",
            inputs=[
                TraceSocket.Input(
                    "trace",
                    tooltip="The run with the concept, from Collect Features or Record Prompts. Recorded at "
                    "several places it tells which one is best.",
                ),
                io.Int.Input(
                    "count", default=4, min=1, max=MOST_FEATURES, tooltip="How many features to give out."
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    tooltip="Place of the model whose features go out, as the figure names it. Empty = the "
                    "one where the concept is clearest.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                TraceSocket.Input(
                    "trace_without",
                    optional=True,
                    tooltip="The same without it: best the same seeds and prompts but for the concept. Not "
                    "connected = the mask says where the concept is.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the concept is in the picture, white. With one trace its inside is "
                    "compared with its outside; with two it says where to look.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="The best features of one place, for Steer Features with the SAE of that place.",
                ),
                io.Image.Output(
                    "figure",
                    display_name="IMAGE",
                    tooltip="Places by steps: how clearly the best feature tells the two sides apart.",
                ),
                io.String.Output(
                    "table", display_name="table", tooltip="The best features of all places, with numbers."
                ),
            ],
            is_output_node=True,
        )
        return searchable(schema, "concept", "contrast", "compare", "interpretability", "where in the model")

    @classmethod
    def execute(
        cls,
        trace: Any,
        count: int,
        hook_point: str,
        role: str,
        trace_without: Any = None,
        mask: Any = None,
    ) -> io.NodeOutput:
        from ..comfy_revelio.analysis import find_features
        from ..comfy_revelio.render.effect_table import effect_table, found_table
        from ..comfy_revelio.steering import Selection

        asked = trace.place(hook_point.strip()) if hook_point.strip() else ""
        findings = find_features(trace, trace_without, mask=mask, role=role)
        best = findings.best(count, asked)
        place = best[0].hook_point if best else asked
        chosen = findings.best(count, place) if best else []
        table = found_table(findings.best(max(count, 8), asked), findings.total_steps)
        figure = effect_table(findings, compared=_compared(trace, trace_without, mask))[None]
        selection = Selection(tuple(one.feature for one in chosen), source=place)
        return io.NodeOutput(selection, figure, table, ui=ui.PreviewImage(figure, cls=cls))


class RevelioFindConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioFindConcept",
            display_name="Find Concept (Revelio)",
            category="Revelio/Find",
            description="A concept of your own, to steer with: all that changes at one place of the model "
            "between pictures with it and pictures without it. Unlike the few best features of Find "
            "Features, which a concept is seen by, this takes it out and puts it in.",
            inputs=[
                Sae.Input(
                    "sae",
                    tooltip="The SAE of the place to steer, which recorded both runs. Late places of the "
                    "model, such as up block 4 of the bundled one, steer best.",
                ),
                TraceSocket.Input(
                    "trace",
                    tooltip="The run with the concept, from Record Prompts or Collect Features. Eight "
                    "pictures of several kinds are a good beginning.",
                ),
                TraceSocket.Input(
                    "trace_without",
                    tooltip="The same without it: the same seeds and prompts but for the concept.",
                ),
                io.Int.Input(
                    "count",
                    default=64,
                    min=1,
                    max=1024,
                    tooltip="How many features may carry it. More hold more of it; fewer touch less else.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="The concept as a whole, for selected of Steer Features with the same SAE: "
                    "try strength -2 to take it out, 1.5 to put it in.",
                ),
                io.String.Output(
                    "table", display_name="table", tooltip="The features that carry most of it."
                ),
            ],
        )
        return searchable(schema, "concept", "remove concept", "custom concept", "contrast", "slider")

    @classmethod
    def execute(cls, sae: Any, trace: Any, trace_without: Any, count: int, role: str) -> io.NodeOutput:
        from ..comfy_revelio.analysis import concept_of_runs
        from ..comfy_revelio.render.table import concept_table
        from ..comfy_revelio.steering import Selection

        concept, place = concept_of_runs(sae.dictionary, trace, trace_without, role=role, count=count)
        selection = Selection((), source=place, concepts=((concept, 1.0),))
        return io.NodeOutput(selection, concept_table(concept, sae.dictionary))


class RevelioSelectFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioSelectFeatures",
            display_name="Select Features (Revelio)",
            category="Revelio/Find",
            description="Features and concepts of an SAE by hand, each with a weight of its own, for Steer "
            "Features and Feature Maps. What is connected joins them; a weight written here counts more.",
            inputs=[
                Sae.Input("sae", tooltip="The SAE that the features belong to."),
                io.String.Input(
                    "features",
                    multiline=True,
                    default="",
                    tooltip="One a line, or separated by commas: 1203 = -1, or glasses = -2. Numbers, labels "
                    "or concepts of the SAE. Without a weight it is 1; 0 switches a connected one off.",
                ),
                Features.Input(
                    "selected",
                    optional=True,
                    tooltip="Features from Find Features, Top Features or the Explorer, to add these to.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features_out",
                    display_name="FEATURES",
                    tooltip="Connect to selected of Steer Features; its strength multiplies all weights.",
                ),
                io.String.Output("table", display_name="table", tooltip="What was selected, with weights."),
            ],
        )
        return searchable(schema, "concept", "choose features", "weights")

    @classmethod
    def execute(cls, sae: Any, features: str, selected: Any = None) -> io.NodeOutput:
        from dataclasses import replace

        from ..comfy_revelio.render.table import selection_table
        from ..comfy_revelio.steering import parse_selection

        dictionary = sae.dictionary
        source = selected.source if selected is not None and selected.source else ""
        written = parse_selection(features, dictionary, dictionary.concepts)
        connected = None if selected is None else selected.resolved(dictionary, dictionary.concepts)
        joined = replace(written, source=source).with_others(connected)
        return io.NodeOutput(joined, selection_table(joined, dictionary))


class RevelioLabelFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioLabelFeatures",
            display_name="Label Features (Revelio)",
            category="Revelio/Find",
            description="Draws many prompts, keeps the picture parts on which each feature of an SAE fires "
            "most, and names the features. All of it goes into one file beside the SAE, which Load SAE, the "
            "Explorer and the other nodes read from then on.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the SAE reads."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its VAE, for the pictures."),
                Sae.Input("sae", tooltip="The SAE, from Load SAE or Train SAE: it needs a file."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="Prompts to draw, one a line, each in turn. Their words become the labels, so "
                    "say what varies: a red hat, a beard.",
                ),
                io.Int.Input(
                    "pictures",
                    default=96,
                    min=1,
                    max=1_000_000,
                    tooltip="How many pictures to draw in all. A word needs at least 4 pictures with it and "
                    "4 without it.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Seed of the first picture."),
                *sampling_inputs(),
                io.Int.Input(
                    "examples", default=8, min=1, max=64, tooltip="Picture parts to keep of each feature."
                ),
                io.Combo.Input(
                    "by",
                    options=["captions", "clip", "endpoint"],
                    default="captions",
                    tooltip="captions: the word that a feature goes with best. clip: the word that a CLIP "
                    "model finds nearest to the crops. endpoint: what a vision model answers; its address is "
                    "set outside the graph, see the help page.",
                ),
                io.String.Input(
                    "words",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="For clip: words to choose from, one a line. Empty = those of the prompts.",
                ),
                io.String.Input(
                    "clip_model",
                    default="",
                    optional=True,
                    tooltip="For clip: the name of a folder in models/clip_vision that holds a CLIP model as "
                    "transformers saves it.",
                ),
            ],
            outputs=[
                Sae.Output("sae_out", display_name="SAE", tooltip="The SAE with its labels."),
                io.Image.Output(
                    "figure", display_name="IMAGE", tooltip="Features, their labels and what they fire on."
                ),
                io.String.Output("table", display_name="table", tooltip="The labels, the surest first."),
            ],
            is_output_node=True,
        )
        return searchable(schema, "feature index", "top activating images", "interpretability", "captions")

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        sae: Any,
        prompts: str,
        words: str = "",
        clip_model: str = "",
        **settings: Any,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.learn.label import label_features
        from ..comfy_revelio.steering.contrast_prompts import lines_of

        labelled, figure, table = label_features(
            model,
            clip,
            vae,
            sae,
            lines_of(prompts),
            words=lines_of(words),
            clip_model=clip_model,
            **settings,
        )
        return io.NodeOutput(labelled, figure[None], table, ui=ui.PreviewImage(figure[None], cls=cls))


def _compared(trace: Any, trace_without: Any, mask: Any) -> str:
    """What was compared, in a few words."""
    if trace_without is None:
        return "Inside the mask against outside it"
    where = "" if mask is None else ", inside the mask"
    return f"{trace.batch_size} with it against {trace_without.batch_size} without{where}"


NODES: list[Any] = [RevelioFindFeatures, RevelioFindConcept, RevelioSelectFeatures, RevelioLabelFeatures]
