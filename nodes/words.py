"""Words: which words of the prompt the model looked up where, while it drew the picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .readings import ITEM_TOOLTIP, heat_inputs
from .sockets import ROLES, WordsSocket, searchable

ROLE = (
    "Whose words: cond = the positive prompt, uncond = the negative prompt (not at CFG 1), cond2 = a second "
    "positive one."
)


class RevelioRecordWords(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioRecordWords",
            display_name="Record Words (Revelio)",
            category="Revelio/Observe",
            description="Takes the place of the two CLIP Text Encode nodes and gives back the model with a "
            "recorder in it: a sampler that uses this model writes down how much every patch of the picture "
            "attends to every word, in each layer and step. The picture does not change. Follow with Word "
            "Maps after the sampler.",
            inputs=[
                io.Model.Input("model", tooltip="The model to watch."),
                io.Clip.Input("clip", tooltip="The CLIP of the model, which encodes both prompts."),
                io.String.Input(
                    "positive",
                    multiline=True,
                    default="a portrait of a person with glasses",
                    tooltip="The prompt. Weights such as (word:1.2) work as always.",
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    default="",
                    tooltip="The negative prompt. Its words can be shown too, at a CFG above 1.",
                ),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="MODEL", tooltip="Connect to the sampler."),
                io.Conditioning.Output(
                    "positive_out", display_name="positive", tooltip="The encoded prompt, for the sampler."
                ),
                io.Conditioning.Output(
                    "negative_out",
                    display_name="negative",
                    tooltip="The encoded negative prompt, for the sampler.",
                ),
                WordsSocket.Output("words", display_name="WORDS", tooltip="Connect to Word Maps."),
            ],
            # Two Record nodes with equal inputs must not share one recorder.
            not_idempotent=True,
        )
        return searchable(schema, "attention map", "cross attention", "DAAM", "prompt words")

    @classmethod
    def execute(cls, model: Any, clip: Any, positive: str, negative: str) -> io.NodeOutput:
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
            description="Which words drew which pixels: for each word of the prompt, where the picture "
            "attended to it (DAAM), as heat over the picture and as a mask. As a whole, step by step or "
            "layer by layer.",
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The latent straight from the sampler that used the recorded model."
                ),
                WordsSocket.Input("words", tooltip="From Record Words."),
                io.String.Input(
                    "show",
                    default="",
                    tooltip="Words of the prompt, separated by commas: glasses, blue hair. Empty = all that "
                    "name something.",
                ),
                io.Combo.Input(
                    "view",
                    options=["whole run", "by step", "by layer"],
                    default="whole run",
                    tooltip="whole run: one map for each word. by step: a column for each denoising step. by "
                    "layer: a column for each layer of the model.",
                ),
                io.Int.Input(
                    "step",
                    default=-1,
                    min=-1,
                    max=9999,
                    tooltip="Only this step, counted from 0; -1 = all steps.",
                ),
                io.String.Input(
                    "layers",
                    default="",
                    tooltip="Only these layers, separated by commas, such as output_blocks.4.1; their names "
                    "stand above the columns of by layer. Empty = the later half of them, which shows places "
                    "best in UNets.",
                ),
                io.Int.Input(
                    "columns", default=8, min=1, max=64, tooltip="How many steps or layers to show at most."
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE),
                io.Int.Input("item", default=0, min=0, max=4095, tooltip=ITEM_TOOLTIP),
                opacity,
                io.Float.Input(
                    "threshold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0: soft masks, as the heat. Above: masks of 0 and 1, 1 where the heat is above "
                    "this share of its peak.",
                ),
                io.Boolean.Input(
                    "edges",
                    default=True,
                    tooltip="With a picture connected: masks and heat of the whole run keep to its edges. "
                    "Off: the plain attention, in the coarse cells of the model.",
                ),
                image,
            ],
            outputs=[
                io.Image.Output("maps", display_name="IMAGE", tooltip="The figure."),
                io.Mask.Output(
                    "masks",
                    display_name="MASK",
                    tooltip="One mask for each word, in the order of the table, in the size of the picture.",
                ),
                io.String.Output(
                    "table", display_name="table", tooltip="Each word, and how much attention it got."
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
        latent: Any,
        words: Any,
        show: str,
        view: str,
        step: int,
        layers: str,
        columns: int,
        role: str,
        item: int,
        opacity: float,
        threshold: float,
        edges: bool,
        image: Any = None,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.record.words import pixel_size
        from ..comfy_revelio.render.match_images import still
        from ..comfy_revelio.render.word_maps import word_maps

        trace = words.trace_of(latent["samples"])
        shown = word_maps(
            trace,
            show,
            view=view,
            step=None if step < 0 else step,
            layers=layers,
            columns=columns,
            role=role,
            item=item,
            opacity=opacity,
            threshold=threshold,
            edges=edges,
            image=still(image, item),
            size=pixel_size(latent["samples"], image, words.pixels),
        )
        figure = shown.figure[None]
        return io.NodeOutput(figure, shown.masks, shown.table, ui=ui.PreviewImage(figure, cls=cls))


NODES: list[Any] = [RevelioRecordWords, RevelioWordMaps]
