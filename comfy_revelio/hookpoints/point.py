"""One named hook point of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .token_layout import Stream, TokenLayout

Stage = Literal["unet", "transformer", "text", ""]
Captured = Literal["output", "diff"]


@dataclass(frozen=True)
class HookPoint:
    """A layer where an activation is read and where steering can change the activation."""

    name: str
    """Module path inside the diffusion model ("middle_block.1"), or a layer of the text model ("layers.2").
    Ends in ".txt" for the prompt tokens of a block that also has image tokens ("double_blocks.18.txt")."""
    title: str
    """Name shown to people, such as "up 1 - attention 0" or "double block 18, image"."""
    aliases: tuple[str, ...]
    """The names that papers and diffusers use for this hook point."""
    width: int
    """Number of channels of the activation; 0 if the number is unknown."""
    stage: Stage
    """The kind of network that the module belongs to; "" if the kind is unknown."""
    stream: Stream = "image"
    """Whether the tokens belong to the image or to the prompt."""
    captured: tuple[Captured, ...] = ("output", "diff")
    """What can be read: "output", and "diff" (output - input) if output and input have the same shape."""
    layout: TokenLayout = field(default_factory=TokenLayout)
    """How the tokens are arranged in the activation."""
    path: str = ""
    """Path of the module, if it differs from `name`. The model calls this module, so hooks on it fire."""
    element: int = 0
    """Index of the activation in the tuple that the module returns; 0 if the module returns one tensor."""
    input: tuple[str, int] = ("", 0)
    """Keyword and position of the module's input; "diff" subtracts this input from the output."""

    @property
    def module_path(self) -> str:
        """Path of the module on which to register the hook."""
        return self.path or self.name
