"""Recording words: a model clone that notes which patches attend to which words of its prompts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..analysis.attention import word_shares
from ..errors import RevelioError
from ..trace import WordRecorder, WordTrace
from .attention_taps import Attention, attention_heard, check_attention
from .call_hooks import RUN, network_of
from .kept_runs import KeptRuns
from .model_taps import KEY, sample_as_run, transformer_options
from .prompt_words import PromptWords, prompt_words
from .record_image import look_at_image, parse_timesteps
from .runs import Run, roles_of, roles_of_chunks

PIXELS = 8  # of a latent cell in nearly every family
Sides = tuple[int, ...]


@dataclass
class _Open:
    """A run that goes on: what it noted by the size of the latents, and how long each role's prompt is."""

    recorders: dict[Sides, WordRecorder]
    lengths: Mapping[str, int]


class WordsOfRuns:
    """Holds what the last runs of one recorded model noted, each under the latents that the run returned."""

    def __init__(self, words: Mapping[str, PromptWords]) -> None:
        self.words = words
        self._open: WeakKeyDictionary[Run, _Open] = WeakKeyDictionary()
        self._kept: KeptRuns[WordTrace] = KeptRuns()
        self._lock = threading.Lock()

    def start(self, run: Run) -> None:
        with self._lock:
            self._open[run] = _Open({}, _lengths(run))

    def end(self, run: Run, samples: Tensor | None, denoised: Tensor | None) -> None:
        """Keep what the run noted; an interrupted or failed run (`samples` is None) leaves nothing."""
        with self._lock:
            state = self._open.pop(run, None)
        if state is None or samples is None:
            return
        # a prompt with an area of its own sees only a part of the picture, whose place is not known here
        recorder = state.recorders.get(tuple(samples.shape[-2:])) or WordRecorder(run.total_steps)
        trace = recorder.finish({role: words.words for role, words in self.words.items()})
        self._kept.keep(trace, samples, denoised)

    def trace_of(self, samples: Tensor) -> WordTrace:
        """What was noted in the run that returned `samples` (or whose denoised estimate they are)."""
        return self._kept.of(samples)

    def call(self, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One model call, noted if it belongs to a run."""
        options = transformer_options(args, kwargs)
        run = None if options is None else options.get(RUN)
        state = None if run is None else self._open.get(run)
        if options is None or run is None or state is None:
            return executor(*args, **kwargs)
        latent = tuple((kwargs["x"] if "x" in kwargs else args[0]).shape)
        with self._lock:
            recorder = state.recorders.setdefault(latent[-2:], WordRecorder(run.total_steps))
        note = _Call(self, run, recorder, state.lengths, options).note
        with attention_heard(executor.class_obj, options, latent, note) as heard:
            return executor(*_with_options(args, options, heard), **_named(kwargs, heard))


class _Call:
    """What one model call is in its run, and the noting of its attentions."""

    def __init__(
        self,
        owner: WordsOfRuns,
        run: Run,
        recorder: WordRecorder,
        lengths: Mapping[str, int],
        options: Mapping[str, Any],
    ) -> None:
        self._words, self._recorder, self._lengths = owner.words, recorder, lengths
        self._roles = roles_of_chunks(options, run)
        self._sigma = float(options["sigmas"][0])
        self._step = run.step_of(self._sigma)
        self._evaluations = [run.next_evaluation(owner, role, self._step) for role in self._roles]

    def note(self, attention: Attention) -> None:
        rows = len(attention.q) // len(self._roles)
        for chunk, (role, evaluation) in enumerate(zip(self._roles, self._evaluations, strict=True)):
            words = self._words.get(role)
            if words is None or not words.words:
                continue
            columns = _columns(attention, words, self._lengths.get(role, words.length))
            if columns is None:
                continue
            part = slice(chunk * rows, (chunk + 1) * rows)
            mask = attention.mask
            if mask is not None and mask.ndim > 2 and len(mask) == len(attention.q):
                mask = mask[part]
            shares = word_shares(attention.q[part], attention.k[part], columns, mask=mask)
            self._recorder.add(
                attention.layer, self._step, evaluation, self._sigma, role, attention.grid, shares
            )


def read_prompts(
    clip: Any, positive: str, negative: str
) -> tuple[list[Any], list[Any], dict[str, PromptWords]]:
    """Both conditionings as CLIP Text Encode makes them, and the words of both prompts by role.

    Raises RevelioError for a CLIP whose words cannot be placed, and for a positive prompt without words.
    """
    conditionings, words = {}, {}
    for role, prompt in (("cond", positive), ("uncond", negative)):
        conditionings[role] = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        words[role] = prompt_words(clip, prompt, conditionings[role][0][0].shape[1])
    if not words["cond"].words:
        raise RevelioError("The positive prompt has no words to record; write some.")
    return conditionings["cond"], conditionings["uncond"], words


def record_words(model: ModelPatcher, words: Mapping[str, PromptWords]) -> tuple[ModelPatcher, WordsOfRuns]:
    """A clone of `model` that notes the words of the prompts by role ("cond", "uncond"), and what holds them.

    Raises RevelioError for a model whose attention cannot be read.
    """
    check_attention(network_of(model.model))
    runs = WordsOfRuns(words)

    def around_run(executor: Any, *args: Any, **kwargs: Any) -> Any:
        return sample_as_run(executor, args, kwargs, runs.start, runs.end)

    def around_call(executor: Any, *args: Any, **kwargs: Any) -> Any:
        return runs.call(executor, args, kwargs)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_run)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, around_call)
    return clone, runs


def _columns(attention: Attention, words: PromptWords, length: int) -> list[list[int]] | None:
    """The keys of each word in this attention, None where the prompt does not fit into it.

    length: of the conditioning that was sampled with, which may go on behind the prompt.
    """
    begin, end = attention.text
    size = end - begin
    if size < length or length < words.length:
        return None
    copies = size // length if attention.repeats else 1
    if attention.repeats and size != copies * length:
        return None
    first = begin + (size - length if attention.at_end else 0)
    return [[first + copy * length + c for copy in range(copies) for c in own] for own in words.columns]


def _lengths(run: Run) -> dict[str, int]:
    """Positions of each role's conditioning."""
    conditionings = run.conditionings()
    names = {uuid: role for found in roles_of(conditionings).values() for uuid, role in found.items()}
    lengths = {}
    for listed in conditionings.values():
        for one in listed or ():
            states = one.get("cross_attn")
            role = names.get(one.get("uuid"))
            if role is not None and isinstance(states, Tensor):
                lengths[role] = states.shape[1]
    return lengths


def _with_options(args: tuple[Any, ...], options: Any, heard: Any) -> tuple[Any, ...]:
    return tuple(heard if arg is options else arg for arg in args)


def _named(kwargs: dict[str, Any], heard: Any) -> dict[str, Any]:
    return {**kwargs, "transformer_options": heard} if "transformer_options" in kwargs else kwargs


def read_image(
    model: ModelPatcher, clip: Any, vae: Any, image: Tensor, prompt: str, timesteps: str, *, seed: int = 0
) -> WordTrace:
    """Where the model looks up the words of `prompt` while it looks at `image` [B, H, W, 3]; role "cond".

    The image is noised to each of the timesteps (as in "25, 100, 200") and shown to the model once, as Record
    Image does. Raises RevelioError as `record_image` and `record_words` do.
    """
    positive, _, words = read_prompts(clip, prompt, "")
    recorded, runs = record_words(model, words)
    return runs.trace_of(look_at_image(recorded, vae, image, positive, parse_timesteps(timesteps), seed))


def pixel_size(samples: Tensor, image: Tensor | None) -> tuple[int, int]:
    """Height and width of the picture: the image's own, or else what latents usually stand for."""
    if image is not None:
        return int(image.shape[1]), int(image.shape[2])
    return int(samples.shape[-2]) * PIXELS, int(samples.shape[-1]) * PIXELS
