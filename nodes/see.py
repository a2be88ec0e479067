"""See: show which features were active, where in the image and at which step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

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
    from ..comfy_revelio.render.feature_maps import View
    from ..comfy_revelio.steering import Selection
    from ..comfy_revelio.trace import Trace
    from ..comfy_revelio.trace.ranking import Way

VIEWS = ["per step", "overlay", "side by side", "mean", "difference"]


class RevelioTopFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioTopFeatures",
            display_name="Top Features (Revelio)",
            category="Revelio/See",
            description="Lists the features that were most active while the image was generated. Connect the "
            "list to Feature Maps or Steer Features. To read the table, connect it to Preview as Text.",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features."),
                io.Int.Input("count", default=8, min=1, max=MOST_ROWS, tooltip="How many features to list."),
                io.Combo.Input(
                    "by",
                    display_name="rank by",
                    options=["distinct", "peak", "mean"],
                    default="distinct",
                    tooltip="distinct: features that are strong in one part of the image, such as the eyes "
                    "or a hat, and weak elsewhere. peak: features with the highest value anywhere. mean: "
                    "features with the highest average.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                io.Int.Input(
                    "step",
                    default=-1,
                    min=-1,
                    max=9999,
                    tooltip="Read only this step, counted from 0; -1 = all steps.",
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    optional=True,
                    tooltip="The hook point to read, such as middle_block.1, if the trace has several. Empty "
                    "= the first hook point.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features", display_name="FEATURES", tooltip="For Feature Maps and Steer Features."
                ),
                io.String.Output("table", display_name="table", tooltip="The features and their values."),
            ],
        )
        return searchable(schema, "xray", "interpretability", "strongest features", "ranking")

    @classmethod
    def execute(
        cls, trace: Trace, count: int, by: Way, role: str, step: int, hook_point: str = ""
    ) -> io.NodeOutput:
        from ..comfy_revelio.render import feature_table
        from ..comfy_revelio.steering import Selection

        point = trace.hook_point(hook_point.strip())
        scores = trace.top_features(point, count, step=None if step < 0 else step, role=role, by=by)
        table = feature_table(scores)
        selection = Selection(tuple(score.feature for score in scores), source=point)
        return io.NodeOutput(selection, table, ui=ui.PreviewText(table))


class RevelioFeatureMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioFeatureMaps",
            display_name="Feature Maps (Revelio)",
            category="Revelio/See",
            description="Shows where features fire, as a heatmap over the finished image. Choose features by "
            "number or connect Top Features; otherwise the most distinct features are shown. The views show "
            "each step, one image per feature, the mean, or the difference between two runs. The maps are "
            "also output as masks.",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features."),
                io.String.Input("feature_numbers", default="", tooltip=NUMBERS_TOOLTIP),
                io.Int.Input(
                    "columns",
                    default=8,
                    min=1,
                    max=64,
                    tooltip="How many steps to show, evenly spaced, including the first and the last. Used "
                    "only if view is per step or difference.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                io.Int.Input(
                    "item", display_name="batch index", default=0, min=0, max=4095, tooltip=ITEM_TOOLTIP
                ),
                *heat_inputs(),
                Features.Input("features", optional=True, tooltip=FEATURES_TOOLTIP),
                io.Combo.Input(
                    "view",
                    options=VIEWS,
                    default="per step",
                    optional=True,
                    tooltip="per step: one figure with a column for each step. overlay: one image per "
                    "feature, as large as the input image, with the feature's mean over all steps. side by "
                    "side: the image next to each feature's mean. mean: the means of all features on one "
                    "scale. difference: where features are more active (orange) or less active (blue) in the "
                    "second run.",
                ),
                TraceSocket.Input(
                    "compare_trace",
                    optional=True,
                    tooltip="A second run, used if view is difference. The run must have the same hook "
                    "point, image size and number of steps.",
                ),
                io.Image.Input(
                    "compare_image",
                    optional=True,
                    tooltip="The image of the second run, shown if view is difference.",
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
                io.Image.Output(
                    "maps",
                    display_name="IMAGE",
                    tooltip="The figure. If view is overlay, one image per feature.",
                ),
                io.Mask.Output(
                    "masks",
                    display_name="MASK",
                    tooltip="One mask per feature, as large as the image. Each mask shows the feature's mean "
                    "over all steps, white at the peak. If view is difference, each mask shows where the two "
                    "runs differ.",
                ),
            ],
            is_output_node=True,
        )
        return searchable(schema, "xray", "heatmap", "attention map", "interpretability", "activation map")

    @classmethod
    def execute(
        cls,
        trace: Trace,
        feature_numbers: str,
        columns: int,
        role: str,
        item: int,
        opacity: float,
        image: Image | None = None,
        features: Selection | None = None,
        view: View = "per step",
        compare_trace: Trace | None = None,
        compare_image: Image | None = None,
        frame: int = -1,
    ) -> io.NodeOutput:
        from ..comfy_revelio.render import feature_maps, feature_masks
        from ..comfy_revelio.render.input_images import image_of_reading

        reading, chosen = reading_of(trace, feature_numbers, features, role, item, frame)
        second = None
        if view == "difference" and compare_trace is not None:
            second = reading.of_second(compare_trace)
            chosen = chosen or reading.most_changed(second)
        chosen = (chosen or most_distinct(reading))[:MOST_ROWS]
        finished = image_of_reading(image, reading)
        images = feature_maps(
            reading,
            chosen,
            view,
            image=finished,
            second=second,
            second_image=None if second is None else image_of_reading(compare_image, second),
            columns=columns,
            opacity=opacity,
        )
        size = None if finished is None else (finished.shape[0], finished.shape[1])
        masks = feature_masks(reading, chosen, size=size, second=second)
        return io.NodeOutput(images, masks, ui=ui.PreviewImage(images, cls=cls))


NODES: list[type[io.ComfyNode]] = [RevelioTopFeatures, RevelioFeatureMaps]
