"""The extension that ComfyUI loads: it adds the `sae` model folder, the Explorer's routes and the nodes."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import ComfyExtension, io

from ..comfy_revelio.host import sae_files
from ..comfy_revelio.host.web import routes
from . import (
    compare,
    conditioning,
    explore,
    find,
    learn,
    load,
    observe,
    over_time,
    see,
    steer,
    transfer,
    words,
)

BUNDLED_WEIGHTS = Path(__file__).resolve().parent.parent / "sae_weights"


class RevelioExtension(ComfyExtension):
    """Registers the model folder and the routes, and lists the pack's nodes."""

    def __init__(self) -> None:
        sae_files.register_folder(BUNDLED_WEIGHTS)
        routes.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        families = (
            *(load, observe, see, words, over_time, explore, steer),
            *(conditioning, transfer, compare, find, learn),
        )
        return [node for family in families for node in family.NODES]
