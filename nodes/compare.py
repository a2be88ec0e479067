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
            description="Runs the nodes connected after this one several times, once for each strength. "
            "Connect the images to Image Grid to compare them side by side.",
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
                    tooltip="The number of strengths, evenly spaced from first to last (both included).",
                ),
                io.String.Input(
                    "values",
                    default="",
                    optional=True,
                    tooltip="A list of strengths to use instead, separated by commas: -4, -1, 0, 2.5. Empty "
                    "= evenly spaced strengths.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "strength",
                    display_name="strength",
                    is_output_list=True,
                    tooltip="The strengths. Connect this to the strength input of Steer Features, Steer "
                    "Concept or any other node.",
                ),
                io.String.Output(
                    "label",
                    display_name="label",
                    is_output_list=True,
                    tooltip="A label for each strength. Connect this to the labels input of Image Grid.",
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
            description="Puts all incoming images, such as those of a Strength Sweep, into one labelled "
            "figure.",
            inputs=[
                io.Image.Input("images", tooltip="A list or a batch of images, of any size."),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Images per row; 0 = chosen automatically, at most 8.",
                ),
                io.String.Input(
                    "title", default="", tooltip="A line of text above the figure; may be empty."
                ),
                io.String.Input(
                    "labels",
                    optional=True,
                    force_input=True,
                    tooltip="One label per image, such as the labels from Strength Sweep. Not connected = "
                    "the images are numbered.",
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
