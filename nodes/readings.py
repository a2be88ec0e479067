"""Shared by the nodes that draw a trace's features: find which features to draw, and at which hook point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

if TYPE_CHECKING:
    from ..comfy_revelio.steering import Selection
    from ..comfy_revelio.trace import Reading, Trace

MOST_ROWS = 32
NUMBERS_TOOLTIP = (
    "The numbers or labels of features to show, separated by commas: 1203, 77, glasses. These features are "
    "shown before the connected ones."
)
FEATURES_TOOLTIP = (
    "Features from Top Features, or features and concepts from Explorer. If the trace has several hook "
    "points, the hook point of these features is shown."
)
ITEM_TOOLTIP = "Which image of the batch, counted from 0."
FRAME_TOOLTIP = (
    "For videos: which recorded frame to show, counted from 0; -1 = at each position, the frame in which the "
    "feature is strongest. Ignored for images."
)


def heat_inputs() -> list[Any]:
    """Return the inputs for the opacity of the heat and for the image under it."""
    return [
        io.Float.Input(
            "opacity",
            default=0.9,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Opacity of the heatmap where it is hottest; 1 hides the image there.",
        ),
        io.Image.Input("image", optional=True, tooltip="The finished image, shown under the heatmap."),
    ]


def reading_of(
    trace: Trace, feature_numbers: str, features: Selection | None, role: str, item: int, frame: int
) -> tuple[Reading, list[int]]:
    """Return (a `Reading` of the trace, the chosen features); the list is empty if none were chosen."""
    from ..comfy_revelio.steering import features_in_trace
    from ..comfy_revelio.trace import Reading

    hook_point, chosen = features_in_trace(trace, feature_numbers, features)
    moves = trace.video_frames(hook_point) > 1
    return Reading(trace, hook_point, role, item, frame if moves and frame >= 0 else None), chosen


def most_distinct(reading: Reading, count: int = 8) -> list[int]:
    """Return the features to show if none were chosen: those that stand out most in one part of the image."""
    scores = reading.trace.top_features(
        reading.hook_point, count, item=reading.item, role=reading.role, by="distinct"
    )
    return [score.feature for score in scores]
