"""Compare: run a graph at several strengths and show the images side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from .sockets import searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Image


class RevelioStrengthSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioStrengthSweep",
            display_name="Strength Sweep (Revelio)",
            category="Revelio/Steer",
            description="Runs the nodes that follow once for each of several strengths. End with Image Grid "
            "to compare the images side by side.",
            inputs=[
                io.Float.Input(
                    "first", default=-4.0, min=-1000.0, max=1000.0, step=0.05, tooltip="The first strength."
                ),
                io.Float.Input(
                    "last", default=4.0, min=-1000.0, max=1000.0, step=0.05, tooltip="The last strength."
                ),
                io.Int.Input(
                    "count",
                    default=5,
                    min=1,
                    max=64,
                    tooltip="How many strengths, evenly spaced from first to last, both included.",
                ),
                io.String.Input(
                    "values",
                    default="",
                    optional=True,
                    tooltip="Your own strengths instead, separated by commas: -4, -1, 0, 2.5. Empty = "
                    "evenly spaced.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "strength",
                    display_name="strength",
                    is_output_list=True,
                    tooltip="For the strength of Steer Features, Steer Concept or any other node.",
                ),
                io.String.Output(
                    "label",
                    display_name="label",
                    is_output_list=True,
                    tooltip="For the labels of Image Grid.",
                ),
            ],
        )
        return searchable(schema, "xy plot", "grid", "compare strengths", "slider")

    @classmethod
    def execute(cls, first: float, last: float, count: int, values: str = "") -> io.NodeOutput:
        from ..comfy_revelio.steering.sweep import strength_label, strengths

        row = strengths(first, last, count, values)
        return io.NodeOutput(row, [strength_label(strength) for strength in row])


class RevelioImageGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioImageGrid",
            display_name="Image Grid (Revelio)",
            category="Revelio/See",
            description="Puts all incoming images into one labelled figure, for example those of a Strength "
            "Sweep.",
            inputs=[
                io.Image.Input("images", tooltip="A list or a batch of images, of any size."),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Images per row; 0 = chosen for you, at most 8.",
                ),
                io.String.Input(
                    "title", default="", tooltip="A line of text above the figure; may be empty."
                ),
                io.String.Input(
                    "labels",
                    optional=True,
                    force_input=True,
                    tooltip="A label for each image, such as those of Strength Sweep. Not connected = "
                    "numbers.",
                ),
            ],
            outputs=[io.Image.Output("grid", display_name="IMAGE", tooltip="The figure.")],
            is_input_list=True,
            is_output_node=True,
        )
        return searchable(schema, "xy plot", "contact sheet", "labelled grid")

    @classmethod
    def execute(
        cls, images: list[Image], columns: list[int], title: list[str], labels: list[str] | None = None
    ) -> io.NodeOutput:
        from ..comfy_revelio.render.grid import grid_of_batches

        figure = grid_of_batches(images, labels, columns=columns[0] or None, title=title[0])[None]
        return io.NodeOutput(figure, ui=ui.PreviewImage(figure, cls=cls))


NODES: list[type[io.ComfyNode]] = [RevelioStrengthSweep, RevelioImageGrid]
