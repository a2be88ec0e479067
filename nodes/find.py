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
            description="Finds the features that stand for a concept. It compares runs that show the concept "
            "with runs that do not, or the area inside a mask with the area outside it. It searches every "
            "recorded hook point and step, and shows where the concept is clearest: a good hook point and "
            "step at which to start steering.",
            inputs=[
                TraceSocket.Input(
                    "trace",
                    tooltip="The run with the concept, from Collect Features or Record Prompts. If the run "
                    "was recorded at several hook points, the figure shows which of them is best.",
                ),
                io.Int.Input(
                    "count", default=4, min=1, max=MOST_FEATURES, tooltip="How many features to output."
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    tooltip="The hook point whose features are output, named as in the figure. Empty = the "
                    "hook point where the concept is clearest.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                TraceSocket.Input(
                    "trace_without",
                    optional=True,
                    tooltip="The run without the concept, ideally with the same seeds and with prompts that "
                    "differ only in the concept. Not connected = the mask marks the concept.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="A mask, white where the image shows the concept. With one trace, the area "
                    "inside the mask is compared with the area outside it. With two, only the area inside "
                    "the mask is compared.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="The best features of one hook point. Use them in Steer Features together with "
                    "the SAE of that hook point.",
                ),
                io.Image.Output(
                    "figure",
                    display_name="IMAGE",
                    tooltip="A figure with a cell for each hook point and step. Each cell shows how clearly "
                    "the best feature there distinguishes the concept.",
                ),
                io.String.Output(
                    "table",
                    display_name="table",
                    tooltip="The best features of all hook points, or of the chosen one, with their scores.",
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
            description="Makes your own concept for steering, from images that show the concept and images "
            "that do not. The concept consists of the features that differ between these images at one hook "
            "point. Find Features outputs the few features that show a concept; this node outputs all the "
            "features needed to remove or add it.",
            inputs=[
                Sae.Input(
                    "sae",
                    tooltip="The SAE of the hook point to steer. Both runs must have been recorded with this "
                    "SAE. Late layers, such as up block 4 of the bundled model, are best for steering.",
                ),
                TraceSocket.Input(
                    "trace",
                    tooltip="The run with the concept, from Record Prompts or Collect Features. Eight "
                    "varied images are a good start.",
                ),
                TraceSocket.Input(
                    "trace_without",
                    tooltip="The run without the concept. Use the same seeds, and prompts that differ only "
                    "in the concept.",
                ),
                io.Int.Input(
                    "count",
                    default=64,
                    min=1,
                    max=1024,
                    tooltip="The most features that the concept may consist of. More features capture the "
                    "concept more fully; fewer features change less of the rest of the image.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="The whole concept. Connect this to the selected input of Steer Features, with "
                    "the same SAE. Try strength -2 to remove the concept and 1.5 to add it.",
                ),
                io.String.Output(
                    "table", display_name="table", tooltip="The most important features of the concept."
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
            "Steer Features and Feature Maps. Connected features are included; a weight written here "
            "overrides a connected feature's weight.",
            inputs=[
                Sae.Input("sae", tooltip="The SAE that the features belong to."),
                io.String.Input(
                    "features",
                    multiline=True,
                    default="",
                    tooltip="Feature numbers, labels or concepts of the SAE with their weights, one per line "
                    "or separated by commas: 1203 = -1, glasses = -2. The default weight is 1. A weight of 0 "
                    "switches a connected feature off.",
                ),
                Features.Input(
                    "selected",
                    optional=True,
                    tooltip="Features from Find Features, Top Features or Explorer, to combine with the "
                    "features written here.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features_out",
                    display_name="FEATURES",
                    tooltip="Connect this to the selected input of Steer Features. That node's strength "
                    "multiplies all weights.",
                ),
                io.String.Output(
                    "table", display_name="table", tooltip="The selected features and their weights."
                ),
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
            description="Gives the features of an SAE names, and keeps the image crops in which each feature "
            "fires most. For this, it generates images from many prompts. The names and crops are saved in "
            "one file next to the SAE, and Load SAE, Explorer and the other nodes then use that file.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the SAE reads."),
                io.Clip.Input("clip", tooltip="The model's CLIP."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                Sae.Input("sae", tooltip="The SAE, from Load SAE or Train SAE. It must be saved as a file."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="Prompts to generate images from, one per line, used in turn. Words of the "
                    "prompts become the labels, so name whatever varies between the images, such as a red "
                    "hat or a beard.",
                ),
                io.Int.Input(
                    "pictures",
                    display_name="images",
                    default=96,
                    min=1,
                    max=1_000_000,
                    tooltip="How many images to generate in total. A word can become a label only if at "
                    "least 4 images have the word in their prompt and 4 do not.",
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
                    tooltip="How to choose each label. captions: the prompt word that matches the feature "
                    "best. clip: the word that a CLIP model finds closest to the crops. endpoint: a vision "
                    "model's answer. The model's address is set outside the graph; see the help page.",
                ),
                io.String.Input(
                    "words",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="If labels are chosen by clip, the words to choose from, one per line. Empty = "
                    "the words of the prompts.",
                ),
                io.String.Input(
                    "clip_model",
                    display_name="CLIP model",
                    default="",
                    optional=True,
                    tooltip="If labels are chosen by clip, the name of a folder in models/clip_vision that "
                    "contains a CLIP model in transformers format.",
                ),
            ],
            outputs=[
                Sae.Output("sae_out", display_name="SAE", tooltip="The SAE with its labels."),
                io.Image.Output(
                    "figure",
                    display_name="IMAGE",
                    tooltip="A figure of the features, their labels and the crops in which they fire.",
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
