"""Transfer: what one generation has inside a mask goes into another."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sockets import Sae, TraceSocket, searchable


class RevelioTransferFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioTransferFeatures",
            display_name="Transfer Features (Revelio)",
            category="Revelio/Steer",
            description="Puts what one picture has inside a mask into another: the features that tell it are "
            "put in while the model samples, with the values that were recorded, and what was there before "
            "is taken out (RIEBench).",
            inputs=[
                io.Model.Input("model", tooltip="The model that makes the other picture."),
                Sae.Input("sae", tooltip="The SAE that recorded the traces."),
                TraceSocket.Input("source", tooltip="Trace of the picture to take from."),
                io.Mask.Input("source_mask", tooltip="The part of it to take: white."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="1 = as it was in the source; 0 = no change.",
                ),
                io.Int.Input(
                    "count",
                    default=80,
                    min=1,
                    max=100000,
                    tooltip="How many features go in, and as many out.",
                ),
                io.Combo.Input(
                    "method",
                    options=["adaptive", "plain"],
                    default="adaptive",
                    tooltip="What is taken out: adaptive = what fires in the picture at hand, plain = what "
                    "fired in the target's trace.",
                ),
                io.Combo.Input(
                    "spread",
                    options=["place", "mean", "quantile"],
                    default="place",
                    tooltip="place: each value where it was in the source. mean, quantile: one value (mean, "
                    "or 95 % quantile over the source's mask) all over the target's mask.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the denoising to begin: 0 = first step.",
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
                    options=["cond", "uncond", "both"],
                    default="cond",
                    tooltip="Whom to steer: the positive prompt's half (cond), the negative's, or both.",
                ),
                TraceSocket.Input(
                    "target",
                    optional=True,
                    tooltip="Trace of the other picture, unsteered. Without it nothing is taken out.",
                ),
                io.Mask.Input(
                    "target_mask",
                    optional=True,
                    tooltip="The part of the other picture to change; that of the source if not connected.",
                ),
                io.Combo.Input(
                    "scores",
                    options=["first", "mean"],
                    default="first",
                    optional=True,
                    tooltip="Which steps choose the features: the first recorded one, or all of them.",
                ),
                io.Int.Input(
                    "source_item",
                    default=0,
                    min=0,
                    max=4095,
                    optional=True,
                    tooltip="Which picture of the source's batch, counted from 0.",
                ),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="MODEL", tooltip="Connect to the sampler."),
                io.String.Output("found", display_name="found", tooltip="Which features go in and out."),
            ],
        )
        return searchable(schema, "concept transfer", "copy features", "style transfer")

    @classmethod
    def execute(
        cls,
        model: Any,
        sae: Any,
        source: Any,
        source_mask: Any,
        strength: float,
        count: int,
        method: str,
        spread: str,
        start_percent: float,
        end_percent: float,
        role: str,
        target: Any = None,
        target_mask: Any = None,
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


NODES: list[Any] = [RevelioTransferFeatures]
