"""Record Text: which features of a text encoder layer fire on which tokens of a prompt."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ...dictionary import Codes, Dictionary
from ...render.table import table
from ...trace import Frame, RunRecorder, Trace
from ..comfy_types import Clip
from ..sae_files import SAEHandle
from ..text.content_tokens import readable_tokens
from ..text.encoder_taps import resolve_layer, text_hidden


def record_text(clip: Clip, sae: SAEHandle, prompt: str, *, count: int = 3) -> tuple[Trace, str]:
    """Return (trace, Markdown table) of the features that fire on one prompt; prompt weights have no effect.

    The trace has one step and the role "cond". Its grid has a row for each section that the encoder reads
    (77 tokens for CLIP) and a column for each position; its `words` are the tokens there. The table lists
    each token of the prompt with its `count` strongest features.
    """
    dictionary = sae.dictionary
    layer = resolve_layer(clip, dictionary.hook_point, dictionary.d_model, sae.title)
    hidden, content = text_hidden(clip, [prompt], layer)
    words = readable_tokens(clip, prompt, layer, hidden.shape[1])
    codes = dictionary.encode(hidden.to(dictionary.W_enc.device)).to("cpu")
    recorder = RunRecorder(1, ())
    one_row = Codes(codes.indices.flatten(0, 1)[None], codes.values.flatten(0, 1)[None], codes.n_features)
    name = layer.hook_point.name
    if layer.joined is not None:
        name = "+".join(f"{part.encoder}.{part.hook_point.name}" for part in layer.parts)
    recorder.add(Frame(name, 0, 0, 0.0, 0.0, "cond", (hidden.shape[0], hidden.shape[1]), one_row))
    trace = replace(recorder.finish({name: dictionary}), words=tuple(words))
    return trace, _table(one_row[0], content.flatten(), words, dictionary, count)


def _table(codes: Codes, content: Tensor, words: list[str], dictionary: Dictionary, count: int) -> str:
    """Return a Markdown table of the prompt's tokens and the strongest features of each."""
    rows = []
    for position in content.nonzero().flatten().tolist():
        indices, values = codes.indices[position, :count].tolist(), codes.values[position, :count].tolist()
        found = [
            f"#{feature} {label} {value:.3g}"
            if (label := dictionary.label_of(feature))
            else f"#{feature} {value:.3g}"
            for feature, value in zip(indices, values, strict=True)
            if value != 0
        ]
        rows.append((str(position), words[position], ", ".join(found) or "-"))
    if not rows:
        return "This prompt has no words."
    return table(("position", "token", "strongest features"), rows, numbers_from=3)
