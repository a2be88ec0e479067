"""Learn: harvest a model's activations, train an SAE on them, or make a concept vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from .sockets import ActivationsSocket, Sae, sampling_inputs, searchable

if TYPE_CHECKING:
    from ..comfy_revelio.host.comfy_types import Clip, Model
    from ..comfy_revelio.host.learn.harvest import Activations

_HOOK_POINT_TOOLTIP = (
    "The layer to read, such as middle_block.1 or mid_block.attentions.0. Enter ? to list all names."
)
_PROMPTS_TOOLTIP = (
    "Prompts to generate images from, one per line, used in turn. The more varied the prompts, the better "
    "the SAE."
)


def _choices(name: str) -> list[str]:
    import comfy.samplers

    return list(getattr(comfy.samplers.KSampler, name))


class RevelioHarvest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioHarvest",
            display_name="Harvest Activations (Revelio)",
            category="Revelio/Learn",
            description="Generates images for many prompts and saves the activations of one layer at every "
            "step. They are the training data for Train SAE. If the run is interrupted, start it again with "
            "the same settings and it resumes.",
            inputs=[
                io.Model.Input("model", tooltip="The model to read."),
                io.Clip.Input("clip", tooltip="The model's CLIP."),
                io.String.Input("prompts", multiline=True, default="", tooltip=_PROMPTS_TOOLTIP),
                io.String.Input(
                    "hook_point",
                    default="middle_block.1",
                    tooltip=_HOOK_POINT_TOOLTIP,
                ),
                io.Int.Input(
                    "pictures",
                    display_name="images",
                    default=96,
                    min=1,
                    max=1_000_000,
                    tooltip="How many images to generate in total.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Seed of the first image."),
                *sampling_inputs(),
                io.Combo.Input(
                    "sampler_name", options=_choices("SAMPLERS"), default="euler", tooltip="As in KSampler."
                ),
                io.Combo.Input(
                    "scheduler", options=_choices("SCHEDULERS"), default="normal", tooltip="As in KSampler."
                ),
                io.String.Input(
                    "name",
                    default="my_activations",
                    tooltip="Name of the folder in output/revelio_activations.",
                ),
            ],
            outputs=[
                ActivationsSocket.Output("activations", display_name="ACTIVATIONS", tooltip="For Train SAE."),
                io.String.Output(
                    "about",
                    display_name="about",
                    tooltip="How many activations there are, and where they are saved.",
                ),
            ],
        )
        return searchable(schema, "collect activations", "dataset", "interpretability")

    @classmethod
    def execute(
        cls, model: Model, clip: Clip, prompts: str, hook_point: str, sampler_name: str, **settings: Any
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.learn.harvest import harvest_prompts
        from ..comfy_revelio.steering.contrast_prompts import lines_of

        found = harvest_prompts(model, clip, lines_of(prompts), hook_point, sampler=sampler_name, **settings)
        return io.NodeOutput(found, found.about)


class RevelioTrainSAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..comfy_revelio.training.config import PRESETS

        schema = io.Schema(
            node_id="RevelioTrainSAE",
            display_name="Train SAE (Revelio)",
            category="Revelio/Learn",
            description="Trains a sparse autoencoder on harvested activations and saves it in models/sae, "
            "where Load SAE finds it. The preview shows the loss and the dead features. If training is "
            "interrupted, its state is saved; run the node again with the same settings and it resumes.",
            inputs=[
                ActivationsSocket.Input("activations", tooltip="From Harvest Activations."),
                io.Combo.Input(
                    "recipe",
                    options=list(PRESETS),
                    default="topk",
                    tooltip="The training recipe: topk is a good start. The others follow the papers they "
                    "are named after.",
                ),
                io.Float.Input(
                    "expansion",
                    display_name="expansion factor",
                    default=8.0,
                    min=0.1,
                    max=256.0,
                    step=0.5,
                    tooltip="How many features the SAE has per dimension of the activations. More features "
                    "are more specific, but take longer to train.",
                ),
                io.Int.Input(
                    "k", default=16, min=1, max=4096, tooltip="How many features may be active in each token."
                ),
                io.Int.Input("steps", default=1000, min=1, max=10_000_000, tooltip="Training steps."),
                io.Int.Input(
                    "batch",
                    display_name="batch size",
                    default=2048,
                    min=1,
                    max=1_000_000,
                    tooltip="Activations per training step.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.003,
                    min=1e-6,
                    max=1.0,
                    step=1e-4,
                    round=False,
                    tooltip="Step size of the training. Lower it if the loss jumps.",
                ),
                io.String.Input("name", default="my_sae", tooltip="Name of the file in models/sae."),
            ],
            outputs=[
                Sae.Output(
                    "sae",
                    display_name="SAE",
                    tooltip="The trained SAE, for Record Features and Steer Features.",
                ),
                io.Image.Output(
                    "plot", display_name="plot", tooltip="Loss and dead features over the training steps."
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="Metrics that show how good the SAE is."
                ),
            ],
        )
        return searchable(schema, "sparse autoencoder", "dictionary learning", "interpretability")

    @classmethod
    def execute(
        cls, activations: Activations, recipe: str, expansion: float, name: str, **options: Any
    ) -> io.NodeOutput:
        from ..comfy_revelio.errors import RevelioError
        from ..comfy_revelio.host.learn.train import train_sae
        from ..comfy_revelio.training import ShardSet

        if not 0 < expansion < float("inf"):
            raise RevelioError(f"The expansion must be a number above 0; got {expansion}.")
        n_features = max(1, round(expansion * ShardSet(activations.folder).d_model))
        sae, plot, report = train_sae(activations, recipe, name, n_features=n_features, **options)
        return io.NodeOutput(sae, plot[None], report)


class RevelioConceptVector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="RevelioConceptVector",
            display_name="Concept Vector (Revelio)",
            category="Revelio/Learn",
            description="Computes the direction of a concept: the mean activation for prompts with the "
            "concept minus the mean activation for prompts without it. This is the simplest method. The "
            "result works like an SAE with a single feature, number 0, and can be compared with a trained "
            "SAE.",
            inputs=[
                io.Model.Input("model", tooltip="The model to read."),
                io.Clip.Input("clip", tooltip="The model's CLIP."),
                io.String.Input(
                    "hook_point",
                    default="middle_block.1",
                    tooltip=_HOOK_POINT_TOOLTIP,
                ),
                io.String.Input(
                    "concept",
                    default="glasses",
                    tooltip="The name of the concept. Steer Features then accepts this name.",
                ),
                io.String.Input(
                    "prompts_with",
                    multiline=True,
                    default="",
                    tooltip="Prompts with the concept, one per line.",
                ),
                io.String.Input(
                    "prompts_without",
                    multiline=True,
                    default="",
                    tooltip="The same prompts without the concept, one per line and in the same order. The "
                    "two prompts of a pair share a seed.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Seed of the first prompt."),
                *sampling_inputs(),
            ],
            outputs=[
                Sae.Output(
                    "sae", display_name="SAE", tooltip="A dictionary with one feature, for Steer Features."
                )
            ],
        )
        return searchable(schema, "concept", "steering vector", "difference of means", "control vector")

    @classmethod
    def execute(
        cls,
        model: Model,
        clip: Clip,
        hook_point: str,
        concept: str,
        prompts_with: str,
        prompts_without: str,
        **settings: Any,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.learn.concept_vector import vector_of_prompts
        from ..comfy_revelio.steering.contrast_prompts import lines_of

        sides = lines_of(prompts_with), lines_of(prompts_without)
        return io.NodeOutput(vector_of_prompts(model, clip, hook_point, concept, *sides, **settings))


NODES: list[type[io.ComfyNode]] = [RevelioHarvest, RevelioTrainSAE, RevelioConceptVector]
