"""Words: show where in the image the model attended to each word of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from .readings import ITEM_TOOLTIP, heat_inputs
from .sockets import ROLES, WordsSocket, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Clip, Image, Latent, Model
    from ..comfy_revelio.host.record.words import WordsOfRuns
    from ..comfy_revelio.render.word_maps import View

ROLE = (
    "Whose words to show: cond = the positive prompt, uncond = the negative prompt (not available at CFG 1), "
    "cond2 = a second positive prompt."
)


class RevelioRecordWords(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioRecordWords",
            display_name="Record Words (Revelio)",
            category="Revelio/Observe",
            description="Encodes both prompts and adds a recorder to the model, so that sampling records how "
            "much each image patch attends to each word, in each layer and at each step. This node replaces "
            "the two CLIP Text Encode nodes. The image does not change. Use Word Maps after the sampler.",
            inputs=[
                io.Model.Input("model", tooltip="The model to record. The model you connect is not changed."),
                io.Clip.Input("clip", tooltip="The model's CLIP, which encodes both prompts."),
                io.String.Input(
                    "positive",
                    multiline=True,
                    default="a portrait of a person with glasses",
                    tooltip="The prompt. Weights such as (word:1.2) work as usual.",
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    default="",
                    tooltip="The negative prompt. Its words can be shown too if CFG is above 1.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model_out",
                    display_name="MODEL",
                    tooltip="The model with the recorder. Connect it to the sampler.",
                ),
                io.Conditioning.Output(
                    "positive_out", display_name="positive", tooltip="The encoded prompt, for the sampler."
                ),
                io.Conditioning.Output(
                    "negative_out",
                    display_name="negative",
                    tooltip="The encoded negative prompt, for the sampler.",
                ),
                WordsSocket.Output("words", display_name="WORDS", tooltip="Connect it to Word Maps."),
            ],
            # two Record nodes with equal inputs must not share one recorder
            not_idempotent=True,
        )
        return searchable(schema, "attention map", "cross attention", "DAAM", "prompt words")

    @classmethod
    def execute(cls, model: Model, clip: Clip, positive: str, negative: str) -> io.NodeOutput:
        from ..comfy_revelio.host.record.words import encode_prompts, record_words

        encoded, encoded_negative = encode_prompts(clip, positive, negative)
        recorded, runs = record_words(model)
        return io.NodeOutput(recorded, encoded, encoded_negative, runs)


class RevelioWordMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        opacity, image = heat_inputs()
        schema = io.Schema(
            node_id="RevelioWordMaps",
            display_name="Word Maps (Revelio)",
            category="Revelio/See",
            description="Shows, as heatmaps and masks, which words of the prompt produced which parts of the "
            "image. Each map shows where the image attended to one word (DAAM), over the whole run, at each "
            "step or in each layer.",
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The latent straight from the sampler that used the recorded model."
                ),
                WordsSocket.Input("words", tooltip="From Record Words."),
                io.String.Input(
                    "show",
                    display_name="words to show",
                    default="",
                    tooltip="Words of the prompt, separated by commas: glasses, blue hair. Empty = all "
                    "words that name something.",
                ),
                io.Combo.Input(
                    "view",
                    options=["whole run", "by step", "by layer"],
                    default="whole run",
                    tooltip="whole run: one map for each word. by step: a column for each denoising step. "
                    "by layer: a column for each layer of the model.",
                ),
                io.Int.Input(
                    "step",
                    default=-1,
                    min=-1,
                    max=9999,
                    tooltip="Read only this step, counted from 0; -1 = all steps.",
                ),
                io.String.Input(
                    "layers",
                    default="",
                    tooltip="Show only these layers, separated by commas, such as output_blocks.4.1. To see "
                    "the names of the layers above the columns, set view to by layer. Empty = the later half "
                    "of the layers, which locates words best in UNets.",
                ),
                io.Int.Input(
                    "columns",
                    default=8,
                    min=1,
                    max=64,
                    tooltip="The maximum number of steps or layers to show.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE),
                io.Int.Input(
                    "item", display_name="batch index", default=0, min=0, max=4095, tooltip=ITEM_TOOLTIP
                ),
                opacity,
                io.Float.Input(
                    "threshold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 = soft masks with the same values as the heatmap. Above 0 = hard masks, white "
                    "where the heatmap exceeds this fraction of its peak.",
                ),
                io.Boolean.Input(
                    "edges",
                    display_name="fit to edges",
                    default=True,
                    tooltip="If an image is connected, fit the masks and the heatmap of the whole run to the "
                    "edges in that image. Off = show the raw attention in the model's coarse grid.",
                ),
                image,
            ],
            outputs=[
                io.Image.Output("maps", display_name="IMAGE", tooltip="The figure."),
                io.Mask.Output(
                    "masks",
                    display_name="MASK",
                    tooltip="One mask per word, as large as the image. The masks are in the same order as "
                    "the words in the table.",
                ),
                io.String.Output(
                    "table", display_name="table", tooltip="Each word and how much attention it got."
                ),
            ],
            is_output_node=True,
        )
        return searchable(
            schema, "attention map", "cross attention", "DAAM", "heatmap", "word mask", "segmentation"
        )

    @classmethod
    def execute(
        cls,
        latent: Latent,
        words: WordsOfRuns,
        show: str,
        view: View,
        step: int,
        layers: str,
        columns: int,
        role: str,
        item: int,
        opacity: float,
        threshold: float,
        edges: bool,
        image: Image | None = None,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.record.words import pixel_size
        from ..comfy_revelio.render.input_images import image_of_item
        from ..comfy_revelio.render.word_maps import WordMapOptions, word_maps

        trace = words.trace_of(latent["samples"])
        options = WordMapOptions(
            view=view,
            step=None if step < 0 else step,
            layers=layers,
            columns=columns,
            role=role,
            item=item,
            opacity=opacity,
            threshold=threshold,
            edges=edges,
        )
        size = pixel_size(latent["samples"], image, words.pixels)
        shown = word_maps(trace, show, options, image=image_of_item(image, item), size=size)
        figure = shown.figure[None]
        return io.NodeOutput(figure, shown.masks, shown.table, ui=ui.PreviewImage(figure, cls=cls))


NODES: list[type[io.ComfyNode]] = [RevelioRecordWords, RevelioWordMaps]
