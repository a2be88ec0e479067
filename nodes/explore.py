"""Explore: look through a run with the mouse, choose what to steer, paint where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from .sockets import Features, Sae, TraceSocket, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.dictionary import Dictionary
    from ..comfy_revelio.host.sae_files import SAEHandle
    from ..comfy_revelio.trace import Trace

UI_KEY = "revelio_explorer"


class RevelioExplorer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioExplorer",
            display_name="Explorer (Revelio)",
            category="Revelio/See",
            description="Look through a run with the mouse: move along the denoising steps, click on "
            "something in the picture, see which concepts and features are active there and where else they "
            "are, choose some and turn them down or up. What is chosen goes out to Steer Features, what is "
            "painted as a mask.",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features: the run to look at."),
                io.String.Input(
                    "chosen",
                    default="",
                    tooltip="What goes out as FEATURES, written by the explorer: glasses:-2, 1203:-1.5. The "
                    "number after the colon is the strength, below 0 for less, above 0 for more.",
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    tooltip="The place of the model that the chosen features belong to, written by the "
                    "explorer. Empty = the place of the SAE, or the first recorded one.",
                ),
                io.String.Input(
                    "painted", default="", tooltip="The region painted in the explorer, as it writes it."
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The finished picture of the run, to lie under the heat."
                ),
                Sae.Input(
                    "sae",
                    optional=True,
                    tooltip="The SAE the run was recorded with: for its concepts and the nearest features.",
                ),
                TraceSocket.Input(
                    "compare_trace",
                    optional=True,
                    tooltip="A second run, shown beside the first with the same feature and step. It must "
                    "not depend on this explorer's own outputs.",
                ),
                io.Image.Input("compare_image", optional=True, tooltip="The picture of the second run."),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="FEATURES",
                    tooltip="What was chosen, with its strengths. Connect to selected of Steer Features and "
                    "set its strength to 1.",
                ),
                io.Mask.Output(
                    "mask",
                    display_name="MASK",
                    tooltip="The painted region; white all over where nothing is painted.",
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
        trace: Any,
        chosen: str,
        hook_point: str,
        painted: str,
        image: Any = None,
        sae: Any = None,
        compare_trace: Any = None,
        compare_image: Any = None,
    ) -> io.NodeOutput:
        from ..comfy_revelio.errors import RevelioError
        from ..comfy_revelio.host.web.served_traces import EXHIBITS
        from ..comfy_revelio.steering.painted_mask import painted_mask

        for run in (trace, compare_trace):
            if run is not None and any(run.video_frames(name) > 1 for name in run.hook_points):
                raise RevelioError(
                    "This run is of a video, and the explorer shows pictures; use Feature Maps."
                )
        dictionaries = _known(sae, trace)
        selection = _selection(trace, chosen, hook_point, dictionaries)
        mask = painted_mask(painted, None if image is None else tuple(image.shape[1:3]))
        other = None
        if compare_trace is not None:
            beside = _known(sae, compare_trace)
            other = EXHIBITS.show(compare_trace, beside, _indexes(sae, beside))
        shown = {
            "trace": EXHIBITS.show(trace, dictionaries, _indexes(sae, dictionaries)),
            "images": _pictures(image, "image"),
            "compare_trace": other,
            "compare_images": _pictures(compare_image, "compare_image"),
            "warnings": [] if sae is None or dictionaries else [_of_another(sae, trace)],
        }
        return io.NodeOutput(selection, mask, ui={UI_KEY: [shown]})


def _known(sae: SAEHandle | None, trace: Trace) -> dict[str, Dictionary]:
    """The connected dictionary at the places of the trace that were recorded with it."""
    return {} if sae is None else dict.fromkeys(trace.places_of(sae.dictionary), sae.dictionary)


def _of_another(sae: SAEHandle, trace: Trace) -> str:
    """What is said of an SAE that the run was not recorded with."""
    dictionary = sae.dictionary
    recorded = ", ".join(
        f"{name} ({trace.dictionaries[name].n_features} features)" for name in trace.hook_points
    )
    return (
        f"{sae.title} is left out: it reads {dictionary.hook_point or 'a place that it does not name'} with "
        f"{dictionary.n_features} features, but this run was recorded at {recorded}; connect the SAE that "
        "Record Features used."
    )


def _indexes(sae: Any, places: dict[str, Dictionary]) -> dict[str, Any]:
    """The feature index of the SAE, at the places where it was recorded."""
    return {} if sae is None or sae.index is None else dict.fromkeys(places, sae.index)


def _selection(trace: Trace, chosen: str, hook_point: str, dictionaries: dict[str, Dictionary]) -> Any:
    """What was chosen, at its place; choosing nothing is an empty selection."""
    from dataclasses import replace

    from ..comfy_revelio.errors import RevelioError
    from ..comfy_revelio.steering import parse_selection

    place = hook_point.strip() or next(iter(dictionaries), "") or trace.place()
    if place not in trace.hook_points:
        raise RevelioError(
            f"The features were chosen at {place}, but recorded are {', '.join(trace.hook_points)}; choose "
            "them anew in the explorer."
        )
    dictionary = dictionaries.get(place)
    if dictionary is None:  # a name may be a concept's: whoever steers has the SAE and knows
        selection = parse_selection(chosen, trace.dictionaries[place], look_up=False)
    else:
        selection = parse_selection(chosen, dictionary, dictionary.concepts)
    return selection if selection.empty else replace(selection, source=place)


def _pictures(image: Any, name: str) -> list[Any]:
    """References to the pictures [B, H, W, 3] of an input in ComfyUI's temp folder."""
    from ..comfy_revelio.render.match_images import checked_batch

    return [] if image is None else list(ui.PreviewImage(checked_batch(image, name)).values)


NODES: list[Any] = [RevelioExplorer]
