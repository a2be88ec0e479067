"""What the nodes that draw features of a trace have in common: which features, of which place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

if TYPE_CHECKING:
    from ..comfy_revelio.trace import Reading

MOST_ROWS = 32
NUMBERS_TOOLTIP = (
    "Features to show, by number or label, separated by commas: 1203, 77, glasses. Shown before the "
    "connected ones."
)
FEATURES_TOOLTIP = (
    "Features from Top Features, or features and concepts from Explorer. Of several recorded places, theirs "
    "is shown."
)
ITEM_TOOLTIP = "Which picture of the batch, counted from 0."
FRAME_TOOLTIP = (
    "For videos: which recorded frame, counted from 0; -1 = each place at its strongest frame. Ignored for "
    "pictures."
)


def heat_inputs() -> list[Any]:
    """How heat lies over which picture."""
    return [
        io.Float.Input(
            "opacity",
            default=0.9,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="How much the hottest heat covers the image.",
        ),
        io.Image.Input("image", optional=True, tooltip="The finished picture, to lie under the heat."),
    ]


def reading_of(
    trace: Any, feature_numbers: str, features: Any, role: str, item: int, frame: int
) -> tuple[Reading, list[int]]:
    """What is to be read, and the features that were chosen for it: none where nobody chose."""
    from ..comfy_revelio.steering import features_in_trace
    from ..comfy_revelio.trace import Reading

    hook_point, chosen = features_in_trace(trace, feature_numbers, features)
    moves = trace.video_frames(hook_point) > 1
    return Reading(trace, hook_point, role, item, frame if moves and frame >= 0 else None), chosen


def most_distinct(reading: Reading, count: int = 8) -> list[int]:
    """The features that stand out most in some place, for when nobody chose any."""
    scores = reading.trace.top_features(
        reading.hook_point, count, item=reading.item, role=reading.role, by="distinct"
    )
    return [score.feature for score in scores]
