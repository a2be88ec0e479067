"""Pictures and tables that explain themselves.

Everything here takes tensors or a trace and gives back `[H, W, 3]` float images in 0..1 or plain text.
"""

from .colours import heat_colour
from .feature_maps import feature_maps
from .grid import grid
from .table import feature_table

__all__ = ["feature_maps", "feature_table", "grid", "heat_colour"]
