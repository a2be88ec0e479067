"""One named place in a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HookPoint:
    """Where an activation lives.

    name: module path, under the diffusion model ("middle_block.1") or among the text model's
        layers ("layers.2"). Always a module that the model calls, so that a forward hook fires.
    title: for people, such as "up 1 - attention 0".
    aliases: the names that papers and diffusers use for it.
    width: channels of the activation; 0 where the module does not tell.
    stage: "unet" or "text".
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    width: int
    stage: str
