"""Learn: harvest a model's activations, train an SAE on them, or make a concept vector."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sockets import ActivationsSocket, Sae, sampling_inputs, searchable

_HOOK_POINT_TOOLTIP = (
    "Where in the model: a name such as middle_block.1 or mid_block.attentions.0; ? lists all."
)
_PROMPTS_TOOLTIP = "Prompts to draw, one a line, each in turn. The more varied, the better the SAE."


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
            description="Draws pictures of many prompts and keeps what one place of the model puts out at "
            "every step, on disk: the food for Train SAE. When it is stopped, the same settings go on.",
            inputs=[
                io.Model.Input("model", tooltip="The model to harvest."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.String.Input("prompts", multiline=True, default="", tooltip=_PROMPTS_TOOLTIP),
                io.String.Input(
                    "hook_point",
                    default="middle_block.1",
                    tooltip=_HOOK_POINT_TOOLTIP,
                ),
                io.Int.Input(
                    "pictures", default=96, min=1, max=1_000_000, tooltip="How many pictures to draw in all."
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Seed of the first picture."),
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
                    tooltip="Name of the folder under output/revelio_activations.",
                ),
            ],
            outputs=[
                ActivationsSocket.Output("activations", display_name="ACTIVATIONS", tooltip="For Train SAE."),
                io.String.Output("about", display_name="about", tooltip="How many there are, and where."),
            ],
        )
        return searchable(schema, "collect activations", "dataset", "interpretability")

    @classmethod
    def execute(
        cls, model: Any, clip: Any, prompts: str, hook_point: str, sampler_name: str, **settings: Any
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.learn.train import harvest_prompts
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
            description="Trains a sparse autoencoder on harvested activations and saves it into models/sae, "
            "where Load SAE finds it. The preview shows loss and dead features while it runs. Interrupt "
            "saves and stops; the same settings go on from there.",
            inputs=[
                ActivationsSocket.Input("activations", tooltip="From Harvest Activations."),
                io.Combo.Input(
                    "recipe",
                    options=list(PRESETS),
                    default="topk",
                    tooltip="How it is trained: topk is a good start; the others follow the papers of these "
                    "names.",
                ),
                io.Float.Input(
                    "expansion",
                    default=8.0,
                    min=0.1,
                    max=256.0,
                    step=0.5,
                    tooltip="Features for each number in an activation. More features are finer, and slower.",
                ),
                io.Int.Input(
                    "k", default=16, min=1, max=4096, tooltip="How many features may be active at each place."
                ),
                io.Int.Input("steps", default=1000, min=1, max=10_000_000, tooltip="Training steps."),
                io.Int.Input(
                    "batch", default=2048, min=1, max=1_000_000, tooltip="Activations in each training step."
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.003,
                    min=1e-6,
                    max=1.0,
                    step=1e-4,
                    round=False,
                    tooltip="How fast it learns. Lower it when the loss jumps.",
                ),
                io.String.Input("name", default="my_sae", tooltip="Name of the file in models/sae."),
            ],
            outputs=[
                Sae.Output(
                    "sae", display_name="SAE", tooltip="The trained SAE, for Record and Steer Features."
                ),
                io.Image.Output(
                    "plot", display_name="plot", tooltip="Loss and dead features over the steps."
                ),
                io.String.Output("report", display_name="report", tooltip="How good it is, in numbers."),
            ],
        )
        return searchable(schema, "sparse autoencoder", "dictionary learning", "interpretability")

    @classmethod
    def execute(
        cls, activations: Any, recipe: str, expansion: float, name: str, **options: Any
    ) -> io.NodeOutput:
        from ..comfy_revelio.errors import RevelioError
        from ..comfy_revelio.host.learn.train import train_sae
        from ..comfy_revelio.training import ShardSet

        if not 0 < expansion < float("inf"):
            raise RevelioError(f"The expansion must be a number above 0, not {expansion}.")
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
            description="The simplest way to a concept's direction: the mean activation of prompts with it "
            "minus that of prompts without it. Use it like an SAE with one feature, number 0, to compare "
            "with a trained one.",
            inputs=[
                io.Model.Input("model", tooltip="The model to look at."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.String.Input(
                    "hook_point",
                    default="middle_block.1",
                    tooltip=_HOOK_POINT_TOOLTIP,
                ),
                io.String.Input(
                    "concept", default="glasses", tooltip="Its name, for Steer Features to find it by."
                ),
                io.String.Input(
                    "prompts_with",
                    multiline=True,
                    default="",
                    tooltip="Prompts with the concept, one a line.",
                ),
                io.String.Input(
                    "prompts_without",
                    multiline=True,
                    default="",
                    tooltip="The same prompts without it, one a line, in the same order: seeds are shared.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Seed of the first prompt."),
                *sampling_inputs(),
            ],
            outputs=[
                Sae.Output(
                    "sae", display_name="SAE", tooltip="A dictionary of one feature, for Steer Features."
                )
            ],
        )
        return searchable(schema, "concept", "steering vector", "difference of means", "control vector")

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        hook_point: str,
        concept: str,
        prompts_with: str,
        prompts_without: str,
        **settings: Any,
    ) -> io.NodeOutput:
        from ..comfy_revelio.host.learn.train import vector_of_prompts
        from ..comfy_revelio.steering.contrast_prompts import lines_of

        sides = lines_of(prompts_with), lines_of(prompts_without)
        return io.NodeOutput(vector_of_prompts(model, clip, hook_point, concept, *sides, **settings))


NODES: list[Any] = [RevelioHarvest, RevelioTrainSAE, RevelioConceptVector]
