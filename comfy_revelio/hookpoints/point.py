"""One named place in a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from .token_layout import TokenLayout


@dataclass(frozen=True)
class HookPoint:
    """Where an activation lives.

    name: module path, under the diffusion model ("middle_block.1") or among the text model's
        layers ("layers.2"). The prompt's tokens of a block that also has the picture's carry
        ".txt" behind it ("double_blocks.18.txt").
    title: for people, such as "up 1 - attention 0" or "double block 18, image".
    aliases: the names that papers and diffusers use for it.
    width: channels of the activation; 0 where the module does not tell.
    stage: "unet", "transformer" or "text"; "" for a module of a model that is not known.
    stream: whose tokens they are: "image" or "text".
    captured: what can be read there: "output", and "diff" (output minus input) where both have
        one shape.
    layout: how the tokens lie in the activation.
    path: the module, where it is not the name. Always a module that the model calls, so that a
        forward hook fires.
    element: which one of a tuple the module's output is.
    input: keyword and position of the input that this output continues, for "diff".
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    width: int
    stage: str
    stream: str = "image"
    captured: tuple[str, ...] = ("output", "diff")
    layout: TokenLayout = field(default_factory=TokenLayout)
    path: str = ""
    element: int = 0
    input: tuple[str, int] = ("", 0)

    @property
    def module_path(self) -> str:
        return self.path or self.name
