"""Find: find the features that stand for something, select them, and name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from .sockets import ROLE_TOOLTIP, ROLES, Features, Sae, TraceSocket, sampling_inputs, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Clip, Mask, Model, Vae
    from ..comfy_revelio.host.sae_files import SAEHandle
    from ..comfy_revelio.steering import Selection
    from ..comfy_revelio.trace import Trace

MOST_FEATURES = 64


class RevelioFindFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioFindFeatures",
            display_name="Find Features (Revelio)",
            category="Revelio/Find",
            description="Finds the features that stand for something, by comparing runs with it and runs "
            "without it, or the inside of a mask with the outside. It searches every recorded hook point "
            "and step, and shows where and when in the model the concept is clearest. That is where to "
            "start steering.",
            inputs=[
                TraceSocket.Input(
                    "trace",
                    tooltip="The run with the concept, from Collect Features or Record Prompts. If it was "
                    "recorded at several hook points, the figure shows which one is best.",
                ),
                io.Int.Input(
                    "count", default=4, min=1, max=MOST_FEATURES, tooltip="How many features to output."
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    tooltip="Output the features of this hook point, named as in the figure. Empty = the "
                    "one where the concept is clearest.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                TraceSocket.Input(
                    "trace_without",
                    optional=True,
                    tooltip="The same without the concept, ideally with the same seeds and with prompts "
                    "that differ only in the concept. Not connected = the mask marks the concept.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the concept is in the image, in white. With one trace, its inside is "
                    "compared with its outside. With two, it limits the comparison to its inside.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="The best features of one hook point, for Steer Features with the SAE of that "
                    "hook point.",
                ),
                io.Image.Output(
                    "figure",
                    display_name="IMAGE",
                    tooltip="Hook points by steps: how clearly the best feature separates the two sides.",
                ),
                io.String.Output(
                    "table",
                    display_name="table",
                    tooltip="The best features of all hook points, with numbers.",
                ),
            ],
            is_output_node=True,
        )
        return searchable(schema, "concept", "contrast", "compare", "interpretability", "where in the model")

    @classmethod
    def execute(
        cls,
        trace: Trace,
        count: int,
        hook_point: str,
        role: str,
        trace_without: Trace | None = None,
        mask: Mask | None = None,
    ) -> io.NodeOutput:
        from ..comfy_revelio.analysis import find_features
        from ..comfy_revelio.render.effect_table import effect_table, found_table
        from ..comfy_revelio.steering import Selection

        asked = trace.hook_point(hook_point.strip()) if hook_point.strip() else ""
        findings = find_features(trace, trace_without, mask=mask, role=role)
        best = findings.best(count, asked)
        found_at = best[0].hook_point if best else asked
        chosen = findings.best(count, found_at) if best else []
        table = found_table(findings.best(max(count, 8), asked), findings.total_steps)
        figure = effect_table(findings, compared=_compared(trace, trace_without, mask))[None]
        selection = Selection(tuple(one.feature for one in chosen), source=found_at)
        return io.NodeOutput(selection, figure, table, ui=ui.PreviewImage(figure, cls=cls))


class RevelioFindConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioFindConcept",
            display_name="Find Concept (Revelio)",
            category="Revelio/Find",
            description="Makes a concept of your own to steer with, from images with something and images "
            "without it. It keeps everything that changes between them at one hook point. Find Features "
            "gives the few features that show a concept; this node gives what is needed to remove or add "
            "it.",
            inputs=[
                Sae.Input(
                    "sae",
                    tooltip="The SAE of the hook point to steer, which must have recorded both runs. Late "
                    "layers, such as up block 4 of the bundled model, steer best.",
                ),
                TraceSocket.Input(
                    "trace",
                    tooltip="The run with the concept, from Record Prompts or Collect Features. Eight "
                    "varied images are a good start.",
                ),
                TraceSocket.Input(
                    "trace_without",
                    tooltip="The same without the concept: the same seeds, and prompts that differ only in "
                    "the concept.",
                ),
                io.Int.Input(
                    "count",
                    default=64,
                    min=1,
                    max=1024,
                    tooltip="How many features may make up the concept. More capture it more fully; fewer "
                    "change less of everything else.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="The whole concept, for selected of Steer Features with the same SAE. Try "
                    "strength -2 to remove it, 1.5 to add it.",
                ),
                io.String.Output(
                    "table", display_name="table", tooltip="The features that carry most of the concept."
                ),
            ],
        )
        return searchable(schema, "concept", "remove concept", "custom concept", "contrast", "slider")

    @classmethod
    def execute(
        cls, sae: SAEHandle, trace: Trace, trace_without: Trace, count: int, role: str
    ) -> io.NodeOutput:
        from ..comfy_revelio.analysis import concept_of_runs
        from ..comfy_revelio.render.table import concept_table
        from ..comfy_revelio.steering import Selection

        concept, found_at = concept_of_runs(sae.dictionary, trace, trace_without, role=role, count=count)
        selection = Selection((), source=found_at, concepts=((concept, 1.0),))
        return io.NodeOutput(selection, concept_table(concept, sae.dictionary))


class RevelioSelectFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioSelectFeatures",
            display_name="Select Features (Revelio)",
            category="Revelio/Find",
            description="Selects features and concepts of an SAE by hand, each with its own weight, for "
            "Steer Features and Feature Maps. Connected features are included; a weight written here takes "
            "precedence.",
            inputs=[
                Sae.Input("sae", tooltip="The SAE that the features belong to."),
                io.String.Input(
                    "features",
                    multiline=True,
                    default="",
                    tooltip="One per line, or separated by commas: 1203 = -1, or glasses = -2. Numbers, "
                    "labels or concepts of the SAE. The default weight is 1; 0 switches a connected feature "
                    "off.",
                ),
                Features.Input(
                    "selected",
                    optional=True,
                    tooltip="Features from Find Features, Top Features or Explorer, to combine with the "
                    "ones written here.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features_out",
                    display_name="FEATURES",
                    tooltip="Connect to selected of Steer Features, whose strength multiplies all weights.",
                ),
                io.String.Output("table", display_name="table", tooltip="The selection with its weights."),
            ],
        )
        return searchable(schema, "concept", "choose features", "weights")

    @classmethod
    def execute(cls, sae: SAEHandle, features: str, selected: Selection | None = None) -> io.NodeOutput:
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
            description="Names the features of an SAE and keeps the image crops on which each feature fires "
            "most. It generates images for many prompts and saves everything in one file next to the SAE, "
            "which Load SAE, Explorer and the other nodes then use.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the SAE reads."),
                io.Clip.Input("clip", tooltip="The model's CLIP."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                Sae.Input("sae", tooltip="The SAE, from Load SAE or Train SAE. It must have a file."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="Prompts to generate from, one per line, used in turn. Their words become the "
                    "labels, so name what varies: a red hat, a beard.",
                ),
                io.Int.Input(
                    "pictures",
                    display_name="images",
                    default=96,
                    min=1,
                    max=1_000_000,
                    tooltip="How many images to generate in all. Each word needs at least 4 images with it "
                    "and 4 without.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Seed of the first image."),
                *sampling_inputs(),
                io.Int.Input(
                    "examples",
                    default=8,
                    min=1,
                    max=64,
                    tooltip="How many image crops to keep for each feature.",
                ),
                io.Combo.Input(
                    "by",
                    display_name="label by",
                    options=["captions", "clip", "endpoint"],
                    default="captions",
                    tooltip="captions: the prompt word that matches the feature best. clip: the word that a "
                    "CLIP model finds closest to the crops. endpoint: the answer of a vision model; its "
                    "address is set outside the graph, see the help page.",
                ),
                io.String.Input(
                    "words",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="For clip: words to choose from, one per line. Empty = the words of the prompts.",
                ),
                io.String.Input(
                    "clip_model",
                    display_name="CLIP model",
                    default="",
                    optional=True,
                    tooltip="For clip: name of a folder in models/clip_vision that holds a CLIP model in "
                    "transformers format.",
                ),
            ],
            outputs=[
                Sae.Output("sae_out", display_name="SAE", tooltip="The SAE with its labels."),
                io.Image.Output(
                    "figure",
                    display_name="IMAGE",
                    tooltip="Features, their labels and the crops they fire on.",
                ),
                io.String.Output("table", display_name="table", tooltip="The labels, most certain first."),
            ],
            is_output_node=True,
        )
        return searchable(schema, "feature index", "top activating images", "interpretability", "captions")

    @classmethod
    def execute(
        cls,
        model: Model,
        clip: Clip,
        vae: Vae,
        sae: SAEHandle,
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


def _compared(trace: Trace, trace_without: Trace | None, mask: Mask | None) -> str:
    """Return a short text that describes what was compared, for the figure."""
    if trace_without is None:
        return "Inside the mask against outside it"
    where = "" if mask is None else ", inside the mask"
    return f"{trace.batch_size} with it against {trace_without.batch_size} without{where}"


NODES: list[type[io.ComfyNode]] = [
    RevelioFindFeatures,
    RevelioFindConcept,
    RevelioSelectFeatures,
    RevelioLabelFeatures,
]
