"""Over time: show how active features are from step to step, as curves and as an animation."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from comfy_api.latest import InputImpl, Types, io, ui

from .readings import (
    FEATURES_TOOLTIP,
    FRAME_TOOLTIP,
    ITEM_TOOLTIP,
    MOST_ROWS,
    NUMBERS_TOOLTIP,
    heat_inputs,
    most_distinct,
    reading_of,
)
from .sockets import ROLE_TOOLTIP, ROLES, Features, TraceSocket, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Image
    from ..comfy_revelio.steering import Selection
    from ..comfy_revelio.trace import Trace
    from ..comfy_revelio.trace.timeline import Measure


class RevelioFeatureTimeline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioFeatureTimeline",
            display_name="Feature Timeline (Revelio)",
            category="Revelio/See",
            description="Plots how active features are at each denoising step, from noise to the finished "
            "image. The curves show when the model decides what to draw. The curves of a second run are "
            "dashed. The numbers are also output as CSV.",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features."),
                io.String.Input("feature_numbers", default="", tooltip=NUMBERS_TOOLTIP),
                io.Combo.Input(
                    "measure",
                    options=["mean", "peak", "share"],
                    default="mean",
                    tooltip="mean: the average activation over the image. peak: the highest activation "
                    "anywhere in the image. share: the fraction of the image where the feature fires.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                io.Int.Input(
                    "item", display_name="batch index", default=0, min=0, max=4095, tooltip=ITEM_TOOLTIP
                ),
                Features.Input("features", optional=True, tooltip=FEATURES_TOOLTIP),
                TraceSocket.Input(
                    "compare_trace",
                    optional=True,
                    tooltip="A second run at the same hook point, for example with another prompt or with "
                    "steering. Its curves are dashed.",
                ),
                io.Int.Input(
                    "frame",
                    display_name="video frame",
                    default=-1,
                    min=-1,
                    max=9999,
                    optional=True,
                    tooltip=FRAME_TOOLTIP,
                ),
            ],
            outputs=[
                io.Image.Output("curves", display_name="IMAGE", tooltip="The figure."),
                io.String.Output(
                    "numbers",
                    display_name="csv",
                    tooltip="All numbers as comma-separated values: run, feature, label, step, sigma, mean, "
                    "peak, share.",
                ),
            ],
            is_output_node=True,
        )
        return searchable(schema, "curve", "plot", "over steps", "csv")

    @classmethod
    def execute(
        cls,
        trace: Trace,
        feature_numbers: str,
        measure: Measure,
        role: str,
        item: int,
        features: Selection | None = None,
        compare_trace: Trace | None = None,
        frame: int = -1,
    ) -> io.NodeOutput:
        from ..comfy_revelio.render import feature_timeline
        from ..comfy_revelio.trace.timeline import as_csv, timeline

        reading, chosen = reading_of(trace, feature_numbers, features, role, item, frame)
        chosen = (chosen or most_distinct(reading, 6))[:MOST_ROWS]
        runs = [timeline(reading, chosen)]
        if compare_trace is not None:
            runs.append(timeline(reading.of_second(compare_trace, same_maps=False), chosen))
        figure = feature_timeline(reading, runs, measure)[None]
        return io.NodeOutput(figure, as_csv(runs), ui=ui.PreviewImage(figure, cls=cls))


class RevelioFeatureAnimation(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioFeatureAnimation",
            display_name="Feature Animation (Revelio)",
            category="Revelio/See",
            description="Animates where features fire, from the first denoising step to the last, as a "
            "heatmap over the finished image. The animation plays in the node and is output both as a video "
            "and as frames.",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features."),
                io.String.Input(
                    "feature_numbers", default="", tooltip=NUMBERS_TOOLTIP + " At most 6 features."
                ),
                io.Float.Input(
                    "fps",
                    default=6.0,
                    min=0.5,
                    max=30.0,
                    step=0.5,
                    tooltip="Steps shown per second.",
                ),
                io.Float.Input(
                    "hold",
                    default=1.5,
                    min=0.0,
                    max=5.0,
                    step=0.1,
                    tooltip="How many extra seconds the last step stays visible.",
                ),
                io.Boolean.Input(
                    "loop",
                    default=True,
                    tooltip="Whether the animated image repeats. The video plays once.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                io.Int.Input(
                    "item", display_name="batch index", default=0, min=0, max=4095, tooltip=ITEM_TOOLTIP
                ),
                *heat_inputs(),
                Features.Input("features", optional=True, tooltip=FEATURES_TOOLTIP + " At most 6 features."),
                io.Int.Input(
                    "frame",
                    display_name="video frame",
                    default=-1,
                    min=-1,
                    max=9999,
                    optional=True,
                    tooltip=FRAME_TOOLTIP,
                ),
            ],
            outputs=[
                io.Video.Output("video", display_name="VIDEO", tooltip="For Save Video."),
                io.Image.Output(
                    "frames",
                    display_name="IMAGE",
                    tooltip="One image per step. The image of the last step repeats for as long as that step "
                    "stays visible.",
                ),
            ],
            is_output_node=True,
        )
        return searchable(schema, "video", "heatmap", "over steps")

    @classmethod
    def execute(
        cls,
        trace: Trace,
        feature_numbers: str,
        fps: float,
        hold: float,
        loop: bool,
        role: str,
        item: int,
        opacity: float,
        image: Image | None = None,
        features: Selection | None = None,
        frame: int = -1,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.web.animation import show_webp
        from ..comfy_revelio.render import feature_animation
        from ..comfy_revelio.render.animation import held
        from ..comfy_revelio.render.input_images import image_of_reading

        reading, chosen = reading_of(trace, feature_numbers, features, role, item, frame)
        finished = image_of_reading(image, reading)
        chosen = chosen or most_distinct(reading, 1)
        steps = feature_animation(reading, chosen, image=finished, opacity=opacity)
        frames = held(steps, fps, hold)
        video = InputImpl.VideoFromComponents(
            Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(fps).limit_denominator(1000))
        )
        graph = {} if cls.hidden is None else {"prompt": cls.hidden.prompt, "more": cls.hidden.extra_pnginfo}
        shown = show_webp(steps, fps=fps, hold=hold, loop=loop, **graph)
        return io.NodeOutput(video, frames, ui={"images": [shown], "animated": (True,)})


NODES: list[type[io.ComfyNode]] = [RevelioFeatureTimeline, RevelioFeatureAnimation]
