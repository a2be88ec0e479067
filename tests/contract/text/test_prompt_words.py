"""Which positions the words of a prompt have in the conditionings of real text encoders."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from .test_text_encoders import LONG, clips

__all__ = ["clips"]
PROMPT = "a (portrait:1.2) of a Man with round eyeglasses, red-haired, and a hat"
WORDS = ("a", "portrait", "of", "a", "man", "with", "round", "eyeglasses", "red", "haired", "and", "a", "hat")


@pytest.fixture
def find(pack: Any) -> Any:
    return pack("comfy_revelio.host.text.prompt_words").prompt_words


@pytest.fixture
def words(find: Any) -> Any:
    """words(clip, prompt): the prompt's words, located in its own conditioning."""
    return lambda clip, prompt: find(clip, prompt, states(clip, prompt).shape[1])


def states(clip: Any, prompt: str) -> torch.Tensor:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]


def columns_of(found: Any, word: str) -> tuple[int, ...]:
    return found.columns[found.words.index(word)]


def test_of_the_bundled_model(mini: SimpleNamespace, words: Any) -> None:
    found = words(mini.clip, PROMPT)
    assert found.words == WORDS and found.length == 77
    plain = words(mini.clip, PROMPT.replace("(portrait:1.2)", "portrait"))
    assert plain == found  # a weight moves nothing
    assert words(mini.clip, "").words == ()
    assert words(mini.clip, ", , !").words == ()


@pytest.mark.parametrize("kind", ["mini", "sdxl", "z-image"])
def test_nothing_changes_ahead_of_the_column(clips: Any, mini: Any, words: Any, kind: str) -> None:
    """These encoders read from left to right: another word changes the states from its own column on."""
    clip = mini.clip if kind == "mini" else clips(kind)
    for prompt, other, word in (
        ("a man with a round hat", "a man with a square hat", "round"),
        (LONG + "and a hat", LONG + "and a cat", "hat"),
    ):
        found = words(clip, prompt)
        changed = (states(clip, prompt) != states(clip, other)).any(-1)[0].nonzero()[:, 0]
        assert columns_of(found, word)[0] == changed[0]


def test_long_prompts_continue_in_the_next_section(mini: SimpleNamespace, words: Any) -> None:
    found = words(mini.clip, LONG + "and a hat")
    assert found.length == 77 * 2
    places = [own[0] for word, own in zip(found.words, found.columns, strict=True) if word == "glasses"]
    assert len(places) == 16 and places == sorted(places)
    assert {place // 77 for place in places} == {0, 1}
    taken = [column for own in found.columns for column in own]
    assert len(taken) == len(set(taken))
    assert not {0, 76, 77, 153} & set(taken)  # starts and ends of the sections


@pytest.mark.parametrize(("kind", "encoder"), [("flux", "t5xxl"), ("z-image", "qwen3_4b")])
def test_the_tokens_there_spell_the_word(clips: Any, words: Any, kind: str, encoder: str) -> None:
    clip = clips(kind)
    prompt = PROMPT.replace("(portrait:1.2)", "portrait")
    found = words(clip, prompt)
    assert found.words == WORDS  # and none of the template that Z-Image puts around them
    (section,) = clip.tokenize(prompt)[encoder]
    decode = getattr(clip.tokenizer, encoder).tokenizer.decode
    for word, columns in zip(found.words, found.columns, strict=True):
        assert decode([section[column][0] for column in columns]).strip(" -").lower() == word


def test_two_encoders_behind_each_other(comfyui: Any, find: Any) -> None:
    """Stable Diffusion 3: a word has a column among CLIP's and those of T5 after them."""
    import comfy.sd
    from comfy.supported_models_base import ClipTarget
    from comfy.text_encoders import sd3_clip

    from .test_text_encoders import SMALL

    target = ClipTarget(sd3_clip.SD3Tokenizer, sd3_clip.sd3_clip(dtype_t5=torch.float32))
    options = {**SMALL, "t5xxl_model_config": {**SMALL["t5xxl_model_config"], "d_model": 4096}}
    clip = comfy.sd.CLIP(target, model_options=options)
    ahead = 77
    apart = "1girl with eyeglasses"  # T5 keeps the first word whole
    found = find(clip, apart, ahead + len(clip.tokenize(apart)["t5xxl"][0]))
    assert found.words == ("1", "girl", "with", "eyeglasses")
    assert [max(columns) >= ahead for columns in found.columns] == [False, False, True, True]
    prompt = "a man with round eyeglasses"
    tokens = clip.tokenize(prompt)
    found = find(clip, prompt, ahead + len(tokens["t5xxl"][0]))
    assert found.words == ("a", "man", "with", "round", "eyeglasses")
    decode = clip.tokenizer.t5xxl.tokenizer.decode
    for word, columns in zip(found.words, found.columns, strict=True):
        behind = [column - ahead for column in columns if column >= ahead]
        assert len(behind) < len(columns)
        assert decode([tokens["t5xxl"][0][column][0] for column in behind]).strip() == word


def test_scripts_without_spaces(clips: Any, words: Any) -> None:
    found = words(clips("z-image"), "一个戴眼镜的男人, red hat")
    assert "眼镜" in found.words and found.words[-2:] == ("red", "hat")


def test_letters_of_several_tokens(mini: SimpleNamespace, words: Any) -> None:
    assert words(mini.clip, "красный дом, Straße 🐱 眼镜").words == ("красный", "дом", "straße", "眼镜")


def test_a_word_behind_an_embedding(comfyui: Any, find: Any, pack: Any) -> None:
    words_in = pack("comfy_revelio.host.text.prompt_words").words_in
    found = words_in(["(embedding)", "glasses</w>"], [True, True], lambda tokens: "".join(tokens)[:-4])
    assert found == [("glasses", [1])]


def test_words_of_the_template_are_not_the_prompts(clips: Any, words: Any) -> None:
    prompt = "a user with an assistant robot"
    found = words(clips("z-image"), prompt)
    assert list(found.words) == prompt.split()
    assert all(len(columns) == 1 for columns in found.columns)
