"""Recording words: a model clone that notes which patches attend to which words of its prompts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...analysis.attention_shares import membership, word_shares
from ...errors import RevelioError
from ...trace import WordRecorder, WordTrace
from ..taps.attention import Attention, attention_hooks, check_attention
from ..taps.call_hooks import RUN, network_of
from ..taps.model import KEY, model_input, sample_as_run, transformer_options
from ..taps.roles import roles_of
from ..taps.runs import Run
from ..text.prompt_words import PromptWords, prompt_words
from .generation import pixels_per_cell
from .image import look_at_image, parse_timesteps
from .kept_runs import KeptRuns

WORDS = "revelio_words"
"""Under what a conditioning carries its words; every node of ComfyUI hands on what it does not know."""
Sides = tuple[int, ...]


@dataclass
class _Prompt:
    """What a role is sampled with. length: of its conditioning, which may go on behind the prompt."""

    words: PromptWords
    length: int
    _members: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def member(self, attention: Attention) -> Tensor | None:
        """Which key of this attention belongs to which word, None where the prompt does not fit into it."""
        keys = attention.k.shape[2]
        asked = (attention.text, attention.at_end, attention.repeats, keys, attention.k.device)
        if asked not in self._members:
            columns = _columns(attention, self.words, self.length)
            if not columns:  # or no words at all, as in an empty negative prompt
                return None
            self._members[asked] = membership(columns, keys).to(attention.k.device)
        return self._members[asked]


@dataclass
class _Open:
    """A run that goes on: what it noted by the size of the latents, and each role's prompt."""

    recorders: dict[Sides, WordRecorder]
    prompts: Mapping[str, _Prompt]


class WordsOfRuns:
    """Holds what the last runs of one recorded model noted, each under the latents that the run returned."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        """Pixels of the picture in a cell of the latents."""
        self._open: WeakKeyDictionary[Run, _Open] = WeakKeyDictionary()
        self._kept: KeptRuns[WordTrace] = KeptRuns()
        self._lock = threading.Lock()

    def start(self, run: Run) -> None:
        with self._lock:
            self._open[run] = _Open({}, _prompts(run))

    def end(self, run: Run, samples: Tensor | None, denoised: Tensor | None) -> None:
        """Keep what the run noted; an interrupted or failed run (`samples` is None) leaves nothing."""
        with self._lock:
            state = self._open.pop(run, None)
        if state is None or samples is None:
            return
        # a prompt with an area of its own sees only a part of the picture, whose place is not known here
        recorder = state.recorders.get(tuple(samples.shape[-2:])) or WordRecorder(run.total_steps)
        trace = recorder.finish({role: prompt.words.words for role, prompt in state.prompts.items()})
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
        latent = tuple(model_input(args, kwargs).shape)
        with self._lock:
            recorder = state.recorders.setdefault(latent[-2:], WordRecorder(run.total_steps))
        note = _Call(self, run, recorder, state.prompts, options).note
        with attention_hooks(executor.class_obj, options, latent, note) as heard:
            return executor(*_with_options(args, options, heard), **_named(kwargs, heard))


class _Call:
    """What one model call is in its run, and the noting of its attentions."""

    def __init__(
        self,
        owner: WordsOfRuns,
        run: Run,
        recorder: WordRecorder,
        prompts: Mapping[str, _Prompt],
        options: Mapping[str, Any],
    ) -> None:
        self._recorder, self._prompts = recorder, prompts
        self._roles = run.roles.of_chunks(options)
        self._sigma = float(options["sigmas"][0])
        self._step = run.step_of(self._sigma)
        self._evaluations = [run.next_evaluation(owner, role, self._step) for role in self._roles]

    def note(self, attention: Attention) -> None:
        rows = len(attention.q) // len(self._roles)
        for chunk, (role, evaluation) in enumerate(zip(self._roles, self._evaluations, strict=True)):
            prompt = self._prompts.get(role)
            member = None if prompt is None else prompt.member(attention)
            if member is None:
                continue
            part = slice(chunk * rows, (chunk + 1) * rows)
            mask = attention.mask
            if mask is not None and mask.ndim > 2 and len(mask) == len(attention.q):
                mask = mask[part]
            shares = word_shares(attention.q[part], attention.k[part], member, mask=mask)
            self._recorder.add(
                attention.layer, self._step, evaluation, self._sigma, role, attention.grid, shares
            )


def encoded(clip: Any, prompt: str) -> list[Any]:
    """The conditioning as CLIP Text Encode makes it, which carries the words of the prompt as well.

    Raises RevelioError for a CLIP whose words cannot be placed.
    """
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    words = prompt_words(clip, prompt, conditioning[0][0].shape[1])
    return [[states, {**more, WORDS: words}] for states, more in conditioning]


def encode_prompts(clip: Any, positive: str, negative: str) -> tuple[list[Any], list[Any]]:
    """Both conditionings. Raises RevelioError as `encoded` does, and for a positive prompt without words."""
    conditionings = encoded(clip, positive), encoded(clip, negative)
    if not conditionings[0][0][1][WORDS].words:
        raise RevelioError("The positive prompt has no words to record; write some.")
    return conditionings


def record_words(model: ModelPatcher) -> tuple[ModelPatcher, WordsOfRuns]:
    """A clone of `model` that notes the words of the prompts it samples, and what holds them.

    The prompts are those of `encoded`; of others nothing is noted.
    Raises RevelioError for a model whose attention cannot be read.
    """
    check_attention(network_of(model.model))
    runs = WordsOfRuns(pixels_per_cell(model))

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


def _prompts(run: Run) -> dict[str, _Prompt]:
    """The prompt of each role, as far as its words are known."""
    conditionings = run.conditionings()
    names = {uuid: role for found in roles_of(conditionings).values() for uuid, role in found.items()}
    prompts = {}
    for listed in conditionings.values():
        for one in listed or ():
            states, words = one.get("cross_attn"), one.get(WORDS)
            role = names.get(one.get("uuid"))
            if role is None or not isinstance(words, PromptWords) or not isinstance(states, Tensor):
                continue
            if bool(states.any()):  # ConditioningZeroOut leaves nothing of the words
                prompts[role] = _Prompt(words, states.shape[1])
    return prompts


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
    positive, _ = encode_prompts(clip, prompt, "")
    recorded, runs = record_words(model)
    return runs.trace_of(look_at_image(recorded, vae, image, positive, parse_timesteps(timesteps), seed))


def pixel_size(samples: Tensor, image: Tensor | None, pixels: int) -> tuple[int, int]:
    """Height and width of the picture: the image's own, or else of latents with so many pixels a cell."""
    if image is not None:
        return int(image.shape[1]), int(image.shape[2])
    return int(samples.shape[-2]) * pixels, int(samples.shape[-1]) * pixels
