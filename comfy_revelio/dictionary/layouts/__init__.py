"""Read the checkpoint layouts of other projects. A layout is recognised by a file's content.

Every file is checked strictly. Layouts with the same shapes may compute different things, so each reader
states the formula in the authors' code: how the encoder's input is centred, which values are kept, which bias
decoding adds, and how activations are normalised. The table in docs/formats.md names the sources.
"""

from __future__ import annotations

from ..dictionary import Dictionary
from ..sources import Source
from . import dictionary_learning, flux_ff, itda, openai, revelio, saelens, sparsify, unbox
from .checks import Content, FileLayout

LAYOUTS = tuple(
    module.LAYOUT
    for module in (revelio, flux_ff, unbox, openai, itda, sparsify, dictionary_learning, saelens)
)
"""All layouts, in the order in which they are tried."""


def read_layout(source: Source, content: Content) -> Dictionary:
    """Make a dictionary from the content of a file that has one of the known layouts."""
    layout = recognise(content, source.config)
    if layout is None:
        names = ", ".join(sorted(map(str, content))[:8]) or "none"
        raise source.refuse(f"its tensors ({names}) match no known layout of a dictionary.")
    dictionary = layout.read(source, content)
    dictionary.source_format = layout.of(source.config)
    return dictionary


def recognise(content: Content, config: Content) -> FileLayout | None:
    """Return the first layout that matches the names in the content and the config, or None."""
    return next((layout for layout in LAYOUTS if layout.matches(content, config)), None)
