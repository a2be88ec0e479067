"""Transfer: add the features that fire inside a mask in one generation to another generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .sockets import Sae, TraceSocket, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Mask, Model
    from ..comfy_revelio.host.sae_files import SAEHandle
    from ..comfy_revelio.trace import Trace


class RevelioTransferFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioTransferFeatures",
            display_name="Transfer Features (Revelio)",
            category="Revelio/Steer",
            description="Transfers what is inside a mask from one image into another (RIEBench). While the "
            "model samples, the features that distinguish the masked part of the first image are added with "
            "their recorded values, and the features that distinguish the replaced part of the other image "
            "are removed.",
            inputs=[
                io.Model.Input("model", tooltip="The model that generates the other image."),
                Sae.Input("sae", tooltip="The SAE that the traces were recorded with."),
                TraceSocket.Input("source", tooltip="Trace of the image to transfer from."),
                io.Mask.Input(
                    "source_mask", tooltip="A mask, white on the part of the source image to transfer."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="1 = as strong as in the source, 0 = no change.",
                ),
                io.Int.Input(
                    "count",
                    default=80,
                    min=1,
                    max=100000,
                    tooltip="The number of features to add, and also the number to remove.",
                ),
                io.Combo.Input(
                    "method",
                    options=["adaptive", "plain"],
                    default="adaptive",
                    tooltip="Which activations to remove: adaptive = those of the image being generated, "
                    "plain = those recorded in the target's trace.",
                ),
                io.Combo.Input(
                    "spread",
                    options=["place", "mean", "quantile"],
                    default="place",
                    tooltip="Where to add the recorded values. place: each value at its position in the "
                    "source. mean, quantile: one value (the mean or the 95 % quantile inside the source's "
                    "mask) everywhere inside the target's mask.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When to start: 0 = at the first step.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When to stop: 1 = after the last step.",
                ),
                io.Combo.Input(
                    "role",
                    options=["cond", "uncond", "both"],
                    default="cond",
                    tooltip="Which half of the guidance to steer: cond = the positive prompt, uncond = the "
                    "negative prompt, or both.",
                ),
                TraceSocket.Input(
                    "target",
                    optional=True,
                    tooltip="A trace of the other image, generated without the transfer. Not connected = "
                    "nothing is removed.",
                ),
                io.Mask.Input(
                    "target_mask",
                    optional=True,
                    tooltip="A mask, white on the part of the other image to change. Not connected = the "
                    "source's mask is used.",
                ),
                io.Combo.Input(
                    "scores",
                    options=["first", "mean"],
                    default="first",
                    optional=True,
                    tooltip="Which recorded steps decide the features to transfer: only the first step, or "
                    "the mean of all steps.",
                ),
                io.Int.Input(
                    "source_item",
                    display_name="source batch index",
                    default=0,
                    min=0,
                    max=4095,
                    optional=True,
                    tooltip="Which image of the source's batch, counted from 0.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model_out",
                    display_name="MODEL",
                    tooltip="The model with the transfer. Connect it to the sampler.",
                ),
                io.String.Output(
                    "found", display_name="found", tooltip="Which features are added and removed."
                ),
            ],
        )
        return searchable(schema, "concept transfer", "copy features", "style transfer")

    @classmethod
    def execute(
        cls,
        model: Model,
        sae: SAEHandle,
        source: Trace,
        source_mask: Mask,
        strength: float,
        count: int,
        method: str,
        spread: str,
        start_percent: float,
        end_percent: float,
        role: str,
        target: Trace | None = None,
        target_mask: Mask | None = None,
        scores: str = "first",
        source_item: int = 0,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.transfer import Side, transfer_features

        options = {
            "strength": strength,
            "count": count,
            "method": method,
            "spread": spread,
            "scores": scores,
            "start_percent": start_percent,
            "end_percent": end_percent,
            "role": role,
        }
        taken, given = Side(source, source_mask, source_item), Side(target, target_mask)
        return io.NodeOutput(*transfer_features(model, sae, taken, given, **options))


NODES: list[type[io.ComfyNode]] = [RevelioTransferFeatures]
