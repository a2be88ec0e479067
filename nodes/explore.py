"""Explore: look through a run with the mouse, choose features to steer, and paint where to steer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from .sockets import Features, Sae, TraceSocket, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.analysis.index import IndexHead
    from ..comfy_revelio.dictionary import Dictionary
    from ..comfy_revelio.host.comfy_types import Image
    from ..comfy_revelio.host.sae_files import SAEHandle
    from ..comfy_revelio.steering import Selection
    from ..comfy_revelio.trace import Trace

UI_KEY = "revelio_explorer"


class RevelioExplorer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioExplorer",
            display_name="Explorer (Revelio)",
            category="Revelio/See",
            description="Explores a run with the mouse: click on the image to see which concepts and "
            "features are active there at every step. Choose concepts or features and turn each up or down; "
            "the choice is output for Steer Features. A region that you paint is output as a mask.",
            inputs=[
                TraceSocket.Input("trace", tooltip="The run to explore, from Collect Features."),
                io.String.Input(
                    "chosen",
                    default="",
                    tooltip="The chosen features, filled in by the Explorer and output as FEATURES, such as "
                    "glasses:-2, 1203:-1.5. The number after the colon is the strength: below 0 weakens the "
                    "feature, above 0 strengthens it.",
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    tooltip="The hook point of the chosen features, filled in by the Explorer. Empty = the "
                    "SAE's hook point or, without an SAE, the first recorded hook point.",
                ),
                io.String.Input(
                    "painted",
                    display_name="painted region",
                    default="",
                    tooltip="The painted region, filled in by the Explorer.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The finished image of the run, shown under the heatmap."
                ),
                Sae.Input(
                    "sae",
                    optional=True,
                    tooltip="The SAE that the run was recorded with. If connected, the Explorer also shows "
                    "concepts and each feature's nearest features.",
                ),
                TraceSocket.Input(
                    "compare_trace",
                    optional=True,
                    tooltip="A second run, shown next to the first with the same feature and step. This "
                    "second run must not depend on the outputs of this Explorer.",
                ),
                io.Image.Input("compare_image", optional=True, tooltip="The image of the second run."),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="The chosen features and concepts with their strengths. Connect this to the "
                    "selected input of Steer Features, and set that node's strength to 1.",
                ),
                io.Mask.Output(
                    "mask",
                    display_name="MASK",
                    tooltip="The painted region; all white if nothing is painted.",
                ),
            ],
            is_output_node=True,
        )
        return searchable(
            schema,
            "xray",
            "interpretability",
            "concept",
            "attention map",
            "inspect",
            "what is in the picture",
        )

    @classmethod
    def execute(
        cls,
        trace: Trace,
        chosen: str,
        hook_point: str,
        painted: str,
        image: Image | None = None,
        sae: SAEHandle | None = None,
        compare_trace: Trace | None = None,
        compare_image: Image | None = None,
    ) -> io.NodeOutput:
        from ..comfy_revelio.errors import RevelioError
        from ..comfy_revelio.host.web.trace_registry import SERVED_TRACES
        from ..comfy_revelio.steering.painted_region import painted_mask

        for run in (trace, compare_trace):
            if run is not None and any(run.video_frames(name) > 1 for name in run.hook_points):
                raise RevelioError(
                    "The Explorer shows only images, but this run made a video; use Feature Maps."
                )
        dictionaries = _known(sae, trace)
        selection = _selection(trace, chosen, hook_point, dictionaries)
        size = None if image is None else (image.shape[1], image.shape[2])
        mask = painted_mask(painted, size)
        other = None
        if compare_trace is not None:
            beside = _known(sae, compare_trace)
            other = SERVED_TRACES.show(compare_trace, beside, _indexes(sae, beside))
        shown = {
            "trace": SERVED_TRACES.show(trace, dictionaries, _indexes(sae, dictionaries)),
            "images": _pictures(image, "image"),
            "compare_trace": other,
            "compare_images": _pictures(compare_image, "compare_image"),
            "warnings": [] if sae is None or dictionaries else [_of_another(sae, trace)],
        }
        return io.NodeOutput(selection, mask, ui={UI_KEY: [shown]})


def _known(sae: SAEHandle | None, trace: Trace) -> dict[str, Dictionary]:
    """Return {hook point: the SAE's dictionary} for the hook points that were recorded with this SAE."""
    return {} if sae is None else dict.fromkeys(trace.hook_points_of(sae.dictionary), sae.dictionary)


def _of_another(sae: SAEHandle, trace: Trace) -> str:
    """Return a warning that the connected SAE is not the one that the run was recorded with."""
    dictionary = sae.dictionary
    recorded = ", ".join(
        f"{name} ({trace.dictionaries[name].n_features} features)" for name in trace.hook_points
    )
    return (
        f"{sae.title} is ignored: it reads {dictionary.hook_point or 'a layer that it does not name'} with "
        f"{dictionary.n_features} features, but this run was recorded at {recorded}; connect the SAE that "
        "Record Features used."
    )


def _indexes(sae: SAEHandle | None, recorded: dict[str, Dictionary]) -> dict[str, IndexHead]:
    "Return {hook point: the SAE's feature index} for the hook points in `recorded`; empty without an index."
    return {} if sae is None or sae.index is None else dict.fromkeys(recorded, sae.index)


def _selection(trace: Trace, chosen: str, hook_point: str, dictionaries: dict[str, Dictionary]) -> Selection:
    """Return the chosen features with their hook point; an empty selection if nothing was chosen."""
    from dataclasses import replace

    from ..comfy_revelio.errors import RevelioError
    from ..comfy_revelio.steering import parse_selection

    point = hook_point.strip() or next(iter(dictionaries), "") or trace.hook_point()
    if point not in trace.hook_points:
        raise RevelioError(
            f"The features were chosen at {point}, but the trace was recorded at "
            f"{', '.join(trace.hook_points)}; choose them again in the Explorer."
        )
    dictionary = dictionaries.get(point)
    if dictionary is None:  # only the steering node's SAE knows whether a name is that of a concept
        selection = parse_selection(chosen, trace.dictionaries[point], look_up=False)
    else:
        selection = parse_selection(chosen, dictionary, dictionary.concepts)
    return selection if selection.empty else replace(selection, source=point)


def _pictures(image: Image | None, name: str) -> list[Any]:
    "Save `image` [B, H, W, 3], the input called `name`, in ComfyUI's temp folder; return references to the"
    "files."
    from ..comfy_revelio.render.input_images import checked_batch

    return [] if image is None else list(ui.PreviewImage(checked_batch(image, name)).values)


NODES: list[type[io.ComfyNode]] = [RevelioExplorer]
