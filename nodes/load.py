"""Load: the bundled miniature model, and SAE files."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..comfy_revelio.host import sae_files
from .sockets import Sae


class RevelioMiniModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RevelioMiniModel",
            display_name="Revelio Mini Model",
            category="Revelio/Load",
            description="Loads Revelio Mini, the small text-to-image model that comes with this pack. It "
            "draws 128 x 128 portraits (16 x 16 latents) in seconds, also without a GPU, and works with "
            "every native node. No download.",
            outputs=[
                io.Model.Output("model", display_name="MODEL"),
                io.Clip.Output("clip", display_name="CLIP"),
                io.Vae.Output("vae", display_name="VAE"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..comfy_revelio.host import mini_model

        return io.NodeOutput(*mini_model.load_mini())


class RevelioLoadSAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RevelioLoadSAE",
            display_name="Load SAE (Revelio)",
            category="Revelio/Load",
            description="Loads a sparse autoencoder (SAE): the dictionary of features that Record, Steer "
            "Features and Steer Concept work with. Files come from models/sae and from this pack.",
            inputs=[
                io.Combo.Input(
                    "sae",
                    options=sae_files.listing(),
                    tooltip="The SAE file. Put your own into models/sae, with the config that came with it, "
                    "and reload the page. All published layouts are read, and none can run code.",
                ),
                io.String.Input(
                    "hook_point",
                    default="",
                    optional=True,
                    tooltip="Where the SAE reads, if not where its file says. Leave empty unless you know "
                    "better.",
                ),
                io.Combo.Input(
                    "captured",
                    options=["auto", "output", "diff"],
                    default="auto",
                    optional=True,
                    tooltip="What the SAE was trained on: the output of its place, or diff = output minus "
                    "input (sdxl-unbox). auto = as its file or layout says.",
                ),
            ],
            outputs=[
                Sae.Output(
                    "sae_out", display_name="SAE", tooltip="For Record, Steer Features and Steer Concept."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, sae: str) -> bool | str:
        return sae_files.check(sae) or True

    @classmethod
    def fingerprint_inputs(cls, sae: str, hook_point: str = "", captured: str = "auto") -> str:
        return sae_files.fingerprint(sae)

    @classmethod
    def execute(cls, sae: str, hook_point: str = "", captured: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(sae_files.load(sae, hook_point, "" if captured == "auto" else captured))


NODES: list[Any] = [RevelioMiniModel, RevelioLoadSAE]
