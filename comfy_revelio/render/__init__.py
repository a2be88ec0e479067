"""Pictures and tables that explain themselves.

Everything here takes tensors or a trace and gives back `[H, W, 3]` float images in 0..1 or plain text.
"""

from .animation import feature_animation
from .colours import heat_colour
from .feature_maps import feature_maps
from .feature_views import VIEWS, feature_masks, feature_pictures
from .grid import grid
from .table import feature_table
from .timeline import feature_timeline

__all__ = [
    "VIEWS",
    "feature_animation",
    "feature_maps",
    "feature_masks",
    "feature_pictures",
    "feature_table",
    "feature_timeline",
    "grid",
    "heat_colour",
]
