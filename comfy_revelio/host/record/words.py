"""Record Words: clone a model so that it records which image patches attend to which words of its prompts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...analysis.attention_shares import membership, word_shares
from ...errors import RevelioError
from ...trace import WordRecorder, WordTrace
from ..comfy_types import Clip, Conditioning, Image, Model, Vae
from ..taps.attention import Attention, attention_hooks, check_attention
from ..taps.call_hooks import RUN, network_of
from ..taps.model import KEY, model_input, sample_as_run, transformer_options
from ..taps.roles import roles_of
from ..taps.runs import Run
from ..text.prompt_words import PromptWords, prompt_words
from .generation import pixels_per_cell
from .image import parse_timesteps, show_image
from .kept_runs import KeptRuns

WORDS = "revelio_words"
"""Key under which a conditioning contains its prompt's words; ComfyUI's nodes keep unknown keys."""
LatentSize = tuple[int, ...]
"""(height, width) of the latents in one model call, in latent cells."""


@dataclass
class _Prompt:
    """The prompt of one role in a sampling run."""

    words: PromptWords
    length: int
    """Number of positions in the sampled conditioning, which other nodes may have extended."""
    _members: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def member(self, attention: Attention) -> Tensor | None:
        """Return the `membership` of the attention's keys in the words; None if the prompt does not fit."""
        keys = attention.k.shape[2]
        layout = (attention.text, attention.at_end, attention.repeats, keys, attention.k.device)
        if layout not in self._members:
            columns = _columns(attention, self.words, self.length)
            if not columns:  # the prompt does not fit or has no words, like an empty negative prompt
                return None
            self._members[layout] = membership(columns, keys).to(attention.k.device)
        return self._members[layout]


@dataclass
class _OpenRun:
    """What is kept for a run that has not ended."""

    recorders: dict[LatentSize, WordRecorder]
    """One recorder per latent size, because prompts with an area are sampled on smaller latents."""
    prompts: Mapping[str, _Prompt]
    """The prompt of each role."""


class WordsOfRuns:
    """Records attention to words in every run of one model; `trace_of` finds a run's trace by its latent."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        """Height and width of a latent cell, in image pixels."""
        self._open: WeakKeyDictionary[Run, _OpenRun] = WeakKeyDictionary()
        self._kept: KeptRuns[WordTrace] = KeptRuns()
        self._lock = threading.Lock()

    def start(self, run: Run) -> None:
        """Begin the trace of a run."""
        with self._lock:
            self._open[run] = _OpenRun({}, _prompts(run))

    def end(self, run: Run, samples: Tensor | None, denoised: Tensor | None) -> None:
        """Keep the run's trace, unless the run was interrupted or failed (`samples` is None)."""
        with self._lock:
            state = self._open.pop(run, None)
        if state is None or samples is None:
            return
        # prompts with an area are left out, because the area's position is unknown here
        recorder = state.recorders.get(tuple(samples.shape[-2:])) or WordRecorder(run.total_steps)
        trace = recorder.finish({role: prompt.words.words for role, prompt in state.prompts.items()})
        self._kept.keep(trace, samples, denoised)

    def trace_of(self, samples: Tensor) -> WordTrace:
        """Return the trace of the run that returned `samples` as its latent or as its denoised estimate."""
        return self._kept.of(samples)

    def call(self, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one model call, and record its attention if it belongs to a run."""
        options = transformer_options(args, kwargs)
        run = None if options is None else options.get(RUN)
        state = None if run is None else self._open.get(run)
        if options is None or run is None or state is None:
            return executor(*args, **kwargs)
        latent = tuple(model_input(args, kwargs).shape)
        with self._lock:
            recorder = state.recorders.setdefault(latent[-2:], WordRecorder(run.total_steps))
        record = _CallRecorder(self, run, recorder, state.prompts, options).record
        with attention_hooks(executor.class_obj, options, latent, record) as hooked:
            args = tuple(hooked if arg is options else arg for arg in args)
            if "transformer_options" in kwargs:
                kwargs = {**kwargs, "transformer_options": hooked}
            return executor(*args, **kwargs)


class _CallRecorder:
    """Records every layer's attention in one model call, with the call's step, roles and evaluations."""

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

    def record(self, attention: Attention) -> None:
        """Record how the rows of each role attend, in one layer, to the words of the role's prompt."""
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


def encode_with_words(clip: Clip, prompt: str) -> Conditioning:
    """Encode a prompt as CLIP Text Encode does and attach the prompt's words to the conditioning.

    Raises RevelioError if the words cannot be located in a conditioning of this CLIP.
    """
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    words = prompt_words(clip, prompt, conditioning[0][0].shape[1])
    return [[states, {**more, WORDS: words}] for states, more in conditioning]


def encode_prompts(clip: Clip, positive: str, negative: str) -> tuple[Conditioning, Conditioning]:
    """Encode both prompts with `encode_with_words`; refuse a positive prompt without words."""
    conditionings = encode_with_words(clip, positive), encode_with_words(clip, negative)
    if not conditionings[0][0][1][WORDS].words:
        raise RevelioError("The positive prompt has no words to record; write at least one word.")
    return conditionings


def record_words(model: Model) -> tuple[Model, WordsOfRuns]:
    """Return (a clone of `model` that records the attention to its prompts' words, the clone's recorder).

    Only prompts encoded by `encode_with_words` are recorded.
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
    """Return where each word's keys are in this attention, or None if the prompt does not fit the keys.

    length: number of positions in the sampled conditioning, which other nodes may have extended.
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
    """Return the prompt of each role, for the roles whose conditioning contains words."""
    conditionings = run.conditionings()
    names = {uuid: role for found in roles_of(conditionings).values() for uuid, role in found.items()}
    prompts = {}
    for listed in conditionings.values():
        for conditioning in listed or ():
            states, words = conditioning.get("cross_attn"), conditioning.get(WORDS)
            role = names.get(conditioning.get("uuid"))
            if role is None or not isinstance(words, PromptWords) or not isinstance(states, Tensor):
                continue
            if bool(states.any()):  # ConditioningZeroOut sets the states to 0 but keeps WORDS
                prompts[role] = _Prompt(words, states.shape[1])
    return prompts


def record_words_of_image(
    model: Model, clip: Clip, vae: Vae, image: Image, prompt: str, timesteps: str, *, seed: int = 0
) -> WordTrace:
    """Record where in `image` [B, H, W, 3] the model attends to each word of `prompt`, with role "cond".

    As in Record Image, the image is noised to each timestep (as in "25, 100, 200") and passes through the
    model once per timestep. Raises RevelioError as `record_image` and `record_words` do.
    """
    positive, _ = encode_prompts(clip, prompt, "")
    recorded, runs = record_words(model)
    return runs.trace_of(show_image(recorded, vae, image, positive, parse_timesteps(timesteps), seed))


def pixel_size(samples: Tensor, image: Tensor | None, pixels: int) -> tuple[int, int]:
    """Return (height, width) of `image`, or of `samples` decoded: `pixels` x `pixels` per latent cell."""
    if image is not None:
        return int(image.shape[1]), int(image.shape[2])
    return int(samples.shape[-2]) * pixels, int(samples.shape[-1]) * pixels
