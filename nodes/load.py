"""Load: load the bundled mini model, SAE files and traces; save traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from ..comfy_revelio.host import sae_files
from ..comfy_revelio.host.record import trace_files
from .sockets import Sae, TraceSocket, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.trace import Trace


class RevelioMiniModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioMiniModel",
            display_name="Revelio Mini Model",
            category="Revelio/Load",
            description="Loads Revelio Mini, the small text-to-image model bundled with this pack. It "
            "generates 128 x 128 portraits (16 x 16 latents) in seconds, even without a GPU, and works with "
            "every native node. Nothing to download.",
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="For a sampler or Record Features."),
                io.Clip.Output("clip", display_name="CLIP", tooltip="For CLIP Text Encode or Steer Concept."),
                io.Vae.Output("vae", display_name="VAE", tooltip="For VAE Decode."),
            ],
        )
        return searchable(schema, "small model", "test model", "load checkpoint")

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..comfy_revelio.host.mini import model as mini_model

        return io.NodeOutput(*mini_model.load_mini())


class RevelioLoadSAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioLoadSAE",
            display_name="Load SAE (Revelio)",
            category="Revelio/Load",
            description="Loads a sparse autoencoder (SAE), the dictionary of features that recording and "
            "steering nodes work with. The list shows the files in models/sae and those bundled with this "
            "pack.",
            inputs=[
                io.Combo.Input(
                    "sae",
                    options=sae_files.listing(),
                    tooltip="The SAE file. Put your own files into models/sae, together with their config, "
                    "and reload the page. Published SAEs can be used just as they were released. Code in a "
                    "file is never executed.",
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    optional=True,
                    tooltip="The layer that the SAE reads, if it is not the layer named in the file. Usually "
                    "left empty.",
                ),
                io.Combo.Input(
                    "captured",
                    options=["auto", "output", "diff"],
                    default="auto",
                    optional=True,
                    tooltip="What the SAE was trained on: output = the output of its layer, diff = output "
                    "minus input (sdxl-unbox), auto = whichever of the two the file or its layout "
                    "indicates.",
                ),
            ],
            outputs=[
                Sae.Output(
                    "sae_out",
                    display_name="SAE",
                    tooltip="For Record Features, Steer Features and Steer Concept.",
                )
            ],
        )
        return searchable(schema, "sparse autoencoder", "dictionary", "interpretability")

    @classmethod
    def validate_inputs(cls, sae: str) -> bool | str:
        return sae_files.check(sae) or True

    @classmethod
    def fingerprint_inputs(cls, sae: str, hook_point: str = "", captured: str = "auto") -> str:
        return sae_files.fingerprint(sae)

    @classmethod
    def execute(cls, sae: str, hook_point: str = "", captured: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(sae_files.load(sae, hook_point, "" if captured == "auto" else captured))


class RevelioSaveTrace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioSaveTrace",
            display_name="Save Trace (Revelio)",
            category="Revelio/Load",
            description="Saves a trace, with everything recorded in it, as one .safetensors file in "
            "ComfyUI's output folder. Load Trace restores exactly the same trace.",
            inputs=[
                TraceSocket.Input("trace", tooltip="From Collect Features, Record Image or Record Text."),
                io.String.Input(
                    "filename_prefix",
                    default="revelio/trace",
                    tooltip="The name of the file in the output folder; a number is added to it. Subfolders "
                    "and %year% work as in Save Image.",
                ),
            ],
            outputs=[
                TraceSocket.Output("trace_out", display_name="TRACE", tooltip="The same trace."),
                io.String.Output("file", display_name="file", tooltip="Name of the file, for Load Trace."),
            ],
            is_output_node=True,
        )
        return searchable(schema, "export activations", "activations")

    @classmethod
    def execute(cls, trace: Trace, filename_prefix: str) -> io.NodeOutput:
        file = trace_files.save(trace, filename_prefix)
        return io.NodeOutput(trace, file, ui=ui.PreviewText(f"Saved: {file}"))


class RevelioLoadTrace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioLoadTrace",
            display_name="Load Trace (Revelio)",
            category="Revelio/Load",
            description="Loads a trace, the record of what the features did in one sampling run, from a file "
            "written by Save Trace. A trace file contains only numbers and names, and cannot run code.",
            inputs=[
                io.Combo.Input(
                    "trace",
                    options=trace_files.listing(),
                    tooltip="A trace from ComfyUI's output or input folder, newest first. Reload the page "
                    "to see new files.",
                )
            ],
            outputs=[
                TraceSocket.Output(
                    "trace_out",
                    display_name="TRACE",
                    tooltip="For Feature Maps, Top Features and Transfer Features.",
                )
            ],
        )
        return searchable(schema, "import activations", "activations")

    @classmethod
    def validate_inputs(cls, trace: str) -> bool | str:
        return trace_files.check(trace) or True

    @classmethod
    def fingerprint_inputs(cls, trace: str) -> str:
        return trace_files.fingerprint(trace)

    @classmethod
    def execute(cls, trace: str) -> io.NodeOutput:
        return io.NodeOutput(trace_files.load(trace))


NODES: list[type[io.ComfyNode]] = [RevelioMiniModel, RevelioLoadSAE, RevelioSaveTrace, RevelioLoadTrace]
