"""One named hook point of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .token_layout import Stream, TokenLayout

Stage = Literal["unet", "transformer", "text", ""]
Captured = Literal["output", "diff"]


@dataclass(frozen=True)
class HookPoint:
    """Where an activation is read, and where steering changes it."""

    name: str
    """Module path under the diffusion model ("middle_block.1") or among the text model's layers ("layers.2");
    with ".txt" for the prompt's tokens in a block that has the image's too ("double_blocks.18.txt")."""
    title: str
    """For people, such as "up 1 - attention 0" or "double block 18, image"."""
    aliases: tuple[str, ...]
    """The names that papers and diffusers use for it."""
    width: int
    """Channels of the activation; 0 where the module does not say."""
    stage: Stage
    """"" for a module of an unknown model."""
    stream: Stream = "image"
    """Whose tokens they are."""
    captured: tuple[Captured, ...] = ("output", "diff")
    """What can be read there: "output", and "diff" (output - input) where both have one shape."""
    layout: TokenLayout = field(default_factory=TokenLayout)
    """How the tokens are arranged in the activation."""
    path: str = ""
    """The module, where it is not the name. Always one that the model calls, so that a forward hook fires."""
    element: int = 0
    """Which element of a tuple, where the module returns one."""
    input: tuple[str, int] = ("", 0)
    """Keyword and position of the input that this output continues, for "diff"."""

    @property
    def module_path(self) -> str:
        """Path of the module to hook."""
        return self.path or self.name
