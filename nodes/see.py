"""See: which features were active, and where in the picture at which step."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .sockets import ROLE_TOOLTIP, ROLES, Features, TraceSocket

MOST_ROWS = 32


class RevelioTopFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RevelioTopFeatures",
            display_name="Top Features (Revelio)",
            category="Revelio/See",
            description="The features that were most active while this picture was made, as a list for "
            "Feature Maps or Steer Features and as a table to read (connect Preview as Text).",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features."),
                io.Int.Input("count", default=8, min=1, max=MOST_ROWS, tooltip="How many features to list."),
                io.Combo.Input(
                    "by",
                    options=["distinct", "peak", "mean"],
                    default="distinct",
                    tooltip="distinct: strong in some place and weak elsewhere (parts of the picture). "
                    "peak: highest value anywhere. mean: highest on average.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                io.Int.Input(
                    "step", default=-1, min=-1, max=9999, tooltip="One step, counted from 0; -1 = all steps."
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    optional=True,
                    tooltip="Which recorded place of the model, where the trace has several: middle_block.1. "
                    "Empty = the first.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features", display_name="FEATURES", tooltip="For Feature Maps and Steer Features."
                ),
                io.String.Output("table", display_name="table", tooltip="The features and their values."),
            ],
        )

    @classmethod
    def execute(
        cls, trace: Any, count: int, by: str, role: str, step: int, hook_point: str = ""
    ) -> io.NodeOutput:
        from ..comfy_revelio.render import feature_table
        from ..comfy_revelio.steering import Selection

        place = trace.place(hook_point.strip())
        scores = trace.top_features(place, count, step=None if step < 0 else step, role=role, by=by)
        table = feature_table(scores)
        selection = Selection(tuple(score.feature for score in scores), source=place)
        return io.NodeOutput(selection, table, ui=ui.PreviewText(table))


class RevelioFeatureMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RevelioFeatureMaps",
            display_name="Feature Maps (Revelio)",
            category="Revelio/See",
            description="One picture that shows where features were active: a row for each feature, a "
            "column for each denoising step, heat over the finished image, with labels and a colour scale. "
            "Choose features by number, or connect Top Features; with neither it shows the most distinct "
            "ones.",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features."),
                io.String.Input(
                    "feature_numbers",
                    default="",
                    tooltip="Features to show, by number or label, separated by commas: 1203, 77, glasses. "
                    "Shown before the connected ones.",
                ),
                io.Int.Input(
                    "columns",
                    default=8,
                    min=1,
                    max=64,
                    tooltip="How many steps to show, spread evenly, first and last too.",
                ),
                io.Combo.Input("role", options=ROLES, default="cond", tooltip=ROLE_TOOLTIP),
                io.Int.Input(
                    "item", default=0, min=0, max=4095, tooltip="Which picture of the batch, counted from 0."
                ),
                io.Float.Input(
                    "opacity",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much the hottest heat covers the image.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The finished picture, to lie under the heat."
                ),
                Features.Input(
                    "features",
                    optional=True,
                    tooltip="Features from Top Features, or features and concepts from Explorer. Of several "
                    "recorded places, theirs is shown.",
                ),
            ],
            outputs=[io.Image.Output("maps", display_name="IMAGE", tooltip="The figure.")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        trace: Any,
        feature_numbers: str,
        columns: int,
        role: str,
        item: int,
        opacity: float,
        image: Any = None,
        features: Any = None,
    ) -> io.NodeOutput:
        from ..comfy_revelio.render import feature_maps
        from ..comfy_revelio.steering import features_in_trace

        hook_point, chosen = features_in_trace(trace, feature_numbers, features)
        if not chosen:
            chosen = [
                score.feature for score in trace.top_features(hook_point, item=item, role=role, by="distinct")
            ]
        figure = feature_maps(
            trace,
            chosen[:MOST_ROWS],
            hook_point=hook_point,
            image=_picture(image, item),
            columns=columns,
            role=role,
            item=item,
            opacity=opacity,
        )[None]
        return io.NodeOutput(figure, ui=ui.PreviewImage(figure, cls=cls))


def _picture(image: Any, item: int) -> Any:
    """The picture of one batch item; a single picture serves every item."""
    from ..comfy_revelio.errors import RevelioError

    if image is None or len(image) == 1:
        return None if image is None else image[0]
    if item >= len(image):
        raise RevelioError(
            f"There is no image {item} in the connected batch; choose an item from 0 to {len(image) - 1}."
        )
    return image[item]


NODES: list[Any] = [RevelioTopFeatures, RevelioFeatureMaps]
