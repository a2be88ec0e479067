"""Draw traces as figures (`[H, W, 3]` float images in 0..1), masks and text tables."""

from .animation import feature_animation
from .colours import heat_colour
from .curves import feature_timeline
from .feature_maps import VIEWS, feature_maps, feature_masks
from .grid import grid
from .table import feature_table

__all__ = [
    "VIEWS",
    "feature_animation",
    "feature_maps",
    "feature_masks",
    "feature_table",
    "feature_timeline",
    "grid",
    "heat_colour",
]
