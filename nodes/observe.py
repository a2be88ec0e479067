"""Observe: record a model's features while it samples, and collect them after."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sockets import HOOK_POINT_TOOLTIP, Recorder, Sae, TraceSocket


class RevelioRecord(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RevelioRecord",
            display_name="Record Features (Revelio)",
            category="Revelio/Observe",
            description="Gives back the model with a recorder in it: a sampler that uses this model writes "
            "down which SAE features fire where, at every step. The picture does not change. Follow with "
            "Collect Features after the sampler.",
            inputs=[
                io.Model.Input("model", tooltip="The model to watch."),
                Sae.Input("sae", tooltip="The SAE whose features are written down."),
                io.String.Input("hook_point", default="", optional=True, tooltip=HOOK_POINT_TOOLTIP),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="MODEL", tooltip="Connect to the sampler."),
                Recorder.Output("recorder", display_name="RECORDER", tooltip="Connect to Collect Features."),
            ],
            # Two Record nodes with equal inputs must not share one recorder.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model: Any, sae: Any, hook_point: str = "") -> io.NodeOutput:
        from ..comfy_revelio.host.recording import record

        return io.NodeOutput(*record(model, sae, hook_point))


class RevelioCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RevelioCollect",
            display_name="Collect Features (Revelio)",
            category="Revelio/Observe",
            description="Takes the sampler's latent and the recorder, and gives what was recorded in "
            "exactly that run as a trace. The latent passes through unchanged. Several samplers may share "
            "one recorded model: each Collect finds its own run.",
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The latent straight from the sampler that used the recorded model."
                ),
                Recorder.Input("recorder", tooltip="From Record Features."),
            ],
            outputs=[
                io.Latent.Output(
                    "latent_out", display_name="LATENT", tooltip="The same latent, for VAE Decode."
                ),
                TraceSocket.Output(
                    "trace", display_name="TRACE", tooltip="For Feature Maps and Top Features."
                ),
            ],
        )

    @classmethod
    def execute(cls, latent: Any, recorder: Any) -> io.NodeOutput:
        return io.NodeOutput(latent, recorder.trace_of(latent["samples"]))


NODES: list[Any] = [RevelioRecord, RevelioCollect]
