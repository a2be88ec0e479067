"""Observe: record what the features do while a model samples, sees an image or reads a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from .sockets import HOOK_POINT_TOOLTIP, Recorder, Sae, TraceSocket, sampling_inputs, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Clip, Conditioning, Image, Latent, Model, Vae
    from ..comfy_revelio.host.record.features import Recorder as FeatureRecorder
    from ..comfy_revelio.host.sae_files import SAEHandle
    from ..comfy_revelio.trace import Trace


class RevelioRecord(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioRecord",
            display_name="Record Features (Revelio)",
            category="Revelio/Observe",
            description="Adds a recorder to the model, so that sampling records which SAE features fire, "
            "where and at which step. The image does not change. Use Collect Features after the sampler.",
            inputs=[
                io.Model.Input("model", tooltip="The model to record. The model you connect is not changed."),
                Sae.Input("sae", tooltip="The SAE whose features are recorded."),
                io.String.Input("hook_point", default="", optional=True, tooltip=HOOK_POINT_TOOLTIP),
            ],
            outputs=[
                io.Model.Output(
                    "model_out",
                    display_name="MODEL",
                    tooltip="The model with the recorder. Connect it to the sampler.",
                ),
                Recorder.Output(
                    "recorder", display_name="RECORDER", tooltip="Connect it to Collect Features."
                ),
            ],
            # two Record nodes with equal inputs must not share one recorder
            not_idempotent=True,
        )
        return searchable(schema, "xray", "hook", "activations", "interpretability", "tap")

    @classmethod
    def execute(cls, model: Model, sae: SAEHandle, hook_point: str = "") -> io.NodeOutput:
        from ..comfy_revelio.host.record.features import record

        return io.NodeOutput(*record(model, sae, hook_point))


class RevelioCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioCollect",
            display_name="Collect Features (Revelio)",
            category="Revelio/Observe",
            description="Collects what was recorded in one sampling run, as a trace. It recognises the run "
            "by the sampler's latent, which passes through unchanged. Several samplers may share one "
            "recorded model.",
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The latent straight from the sampler that used the recorded model."
                ),
                Recorder.Input("recorder", tooltip="From Record Features."),
                TraceSocket.Input(
                    "earlier_trace",
                    optional=True,
                    tooltip="A trace of the same run at another hook point, from another Collect Features. "
                    "The two traces are joined into one.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latent_out", display_name="LATENT", tooltip="The same latent, for VAE Decode."
                ),
                TraceSocket.Output(
                    "trace", display_name="TRACE", tooltip="For Explorer, Feature Maps and Top Features."
                ),
            ],
        )
        return searchable(schema, "trace", "activations", "interpretability")

    @classmethod
    def execute(
        cls, latent: Latent, recorder: FeatureRecorder, earlier_trace: Trace | None = None
    ) -> io.NodeOutput:
        collected = recorder.trace_of(latent["samples"])
        both = collected if earlier_trace is None else earlier_trace.joined(collected)
        return io.NodeOutput(latent, both)


class RevelioRecordImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioRecordImage",
            display_name="Record Image (Revelio)",
            category="Revelio/Observe",
            description="Shows a real image to the model and records which SAE features fire where. The "
            "image is encoded, noised to each timestep and passed through the model once per timestep, as "
            "in the Revelio paper. Nothing is generated.",
            inputs=[
                io.Model.Input("model", tooltip="The model that sees the image."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                Sae.Input("sae", tooltip="The SAE whose features are recorded."),
                io.Image.Input("image", tooltip="One or more images, in a size that the model supports."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The prompt that the model gets along with the image. The paper uses an empty "
                    "prompt.",
                ),
                io.String.Input(
                    "timesteps",
                    default="25, 100, 200",
                    tooltip="How much noise to add, as timesteps from 0 (clean) to 999 (pure noise), "
                    "separated by commas. Details are clearest at 25 to 200. Each timestep becomes one step "
                    "of the trace, the noisiest first.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    tooltip="Seed of the noise, which is the same for all timesteps.",
                ),
                io.String.Input("hook_point", default="", optional=True, tooltip=HOOK_POINT_TOOLTIP),
                io.Combo.Input(
                    "pooling",
                    options=["auto", "token", "spatial_mean"],
                    default="auto",
                    optional=True,
                    tooltip="token: read each position in the image separately. spatial_mean: read only the "
                    "mean over all positions, on which the paper's SAEs were trained. auto: use the setting "
                    "in the SAE file.",
                ),
            ],
            outputs=[
                TraceSocket.Output(
                    "trace", display_name="TRACE", tooltip="For Feature Maps and Top Features."
                ),
            ],
        )
        return searchable(schema, "xray", "real image", "activations", "interpretability")

    @classmethod
    def execute(
        cls,
        model: Model,
        vae: Vae,
        sae: SAEHandle,
        image: Image,
        positive: Conditioning,
        timesteps: str,
        seed: int,
        hook_point: str = "",
        pooling: str = "auto",
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.record.image import record_image

        return io.NodeOutput(
            record_image(
                model, vae, sae, image, positive, timesteps, hook_point=hook_point, pooling=pooling, seed=seed
            )
        )


class RevelioRecordText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioRecordText",
            display_name="Record Text (Revelio)",
            category="Revelio/Observe",
            description="Shows which features of a text SAE fire on which words of a prompt, as a table and "
            "as a trace. Only the text encoder runs; nothing is generated.",
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP whose text encoder reads the prompt."),
                Sae.Input("sae", tooltip="An SAE trained on a layer of the text encoder."),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="a portrait of a person with glasses",
                    tooltip="The prompt. Weights such as (word:1.2) are accepted but have no effect here.",
                ),
                io.Int.Input(
                    "count",
                    default=3,
                    min=1,
                    max=32,
                    tooltip="How many features the table lists for each token, strongest first.",
                ),
            ],
            outputs=[
                io.String.Output("table", display_name="table", tooltip="Each token and its features."),
                TraceSocket.Output(
                    "trace",
                    display_name="TRACE",
                    tooltip="A trace of one step with a column for each token, for Top Features and Save "
                    "Trace.",
                ),
            ],
        )
        return searchable(schema, "text encoder", "tokens", "prompt features", "interpretability")

    @classmethod
    def execute(cls, clip: Clip, sae: SAEHandle, text: str, count: int) -> io.NodeOutput:
        from ..comfy_revelio.host.record.text import record_text

        trace, table = record_text(clip, sae, text, count=count)
        return io.NodeOutput(table, trace, ui=ui.PreviewText(table))


class RevelioRecordPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioRecordPrompts",
            display_name="Record Prompts (Revelio)",
            category="Revelio/Observe",
            description="Generates one image for each prompt of a list and records which SAE features fire "
            "in each image, all in one trace. Use two of these nodes, one whose prompts name a concept and "
            "one whose prompts do not, and compare their traces with Find Features or Find Concept.",
            inputs=[
                io.Model.Input("model", tooltip="The model to record. The model you connect is not changed."),
                io.Clip.Input("clip", tooltip="The model's CLIP."),
                Sae.Input("sae", tooltip="The SAE whose features are recorded."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="One prompt per line; each prompt gives one image. 4 to 16 prompts are more "
                    "reliable than one.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**53,
                    tooltip="Seed of the first prompt; each following prompt uses the next seed. If two of "
                    "these nodes start with the same seed, prompts on the same line share a seed.",
                ),
                *sampling_inputs(),
                Sae.Input(
                    "sae_2",
                    optional=True,
                    tooltip="An SAE of a second hook point, recorded in the same runs.",
                ),
                Sae.Input("sae_3", optional=True, tooltip="An SAE of a third hook point."),
            ],
            outputs=[
                TraceSocket.Output(
                    "trace", display_name="TRACE", tooltip="For Find Features and Find Concept."
                ),
                io.Latent.Output(
                    "latent",
                    display_name="LATENT",
                    tooltip="The generated images as latents, for VAE Decode. Check that the images show "
                    "what the prompts describe.",
                ),
            ],
        )
        return searchable(schema, "batch of prompts", "prompt list", "activations")

    @classmethod
    def execute(
        cls,
        model: Model,
        clip: Clip,
        sae: SAEHandle,
        prompts: str,
        seed: int,
        sae_2: SAEHandle | None = None,
        sae_3: SAEHandle | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.record.prompts import record_prompts
        from ..comfy_revelio.steering.contrast_prompts import lines_of

        saes = [one for one in (sae, sae_2, sae_3) if one is not None]
        trace, latents = record_prompts(model, clip, saes, lines_of(prompts), seed=seed, **settings)
        return io.NodeOutput(trace, {"samples": latents})


NODES: list[type[io.ComfyNode]] = [
    RevelioRecord,
    RevelioCollect,
    RevelioRecordImage,
    RevelioRecordText,
    RevelioRecordPrompts,
]
