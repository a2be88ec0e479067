"""A finished conditioning steered, against steering before encoding, on SDXL's two encoders made small."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

WIDTHS = {"clip_l": 64, "clip_g": 96}
LONG = ", ".join(["a portrait with round glasses and a long beard"] * 16)


@pytest.fixture(scope="module")
def clip(pack: Any) -> Any:
    """clip_l of 4 layers and clip_g of 5; the conditioning contains layers 2 and 3."""
    import comfy.sd
    import comfy.sdxl_clip
    import comfy.supported_models_base

    target = comfy.supported_models_base.ClipTarget(
        comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel
    )
    options: dict[str, Any] = {"dtype": torch.float32}
    for (name, width), layers in zip(WIDTHS.items(), (4, 5), strict=True):
        options[f"{name}_model_config"] = {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_attention_heads": 4,
        }
    clip = comfy.sd.CLIP(target, model_options=options)
    pack("comfy_revelio.host.mini.random_weights").fill_with_random_weights(clip.cond_stage_model)
    return clip


@pytest.fixture
def sae(pack: Any) -> Any:
    def make(hook_point: str, width: int) -> Any:
        generator = torch.Generator().manual_seed(7)
        directions = nn.functional.normalize(torch.randn(256, width, generator=generator), dim=1)
        dictionaries = pack("comfy_revelio.dictionary")
        dictionary = dictionaries.Dictionary(
            directions.clone(),
            torch.zeros(256),
            directions.clone(),
            torch.zeros(width),
            torch.zeros(width),
            dictionaries.Activation("topk_relu", 8),
            provenance=dictionaries.Provenance(hook_point),
        )
        return pack("comfy_revelio.host.sae_files").handle(dictionary, "words.safetensors")

    return make


@pytest.fixture
def host(pack: Any) -> SimpleNamespace:
    concept = pack("comfy_revelio.host.text.concept")
    return SimpleNamespace(
        before=concept.steer_concept,
        after=pack("comfy_revelio.host.text.conditioning").steer_conditioning,
        prompts=concept.ConceptPrompts,
    )


def encode(clip: Any, prompt: str) -> list[Any]:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))


@pytest.mark.parametrize("prompt", ["a portrait with glasses", LONG], ids=["short", "long"])
@pytest.mark.parametrize(("layer", "width"), [("layers.2", 64), ("layers.3", 96)])
@pytest.mark.parametrize(("method", "strength"), [("paper", -0.5), ("contrast", -1.0), ("contrast", 1.0)])
def test_the_same_as_before_encoding(
    host: SimpleNamespace,
    clip: Any,
    sae: Any,
    prompt: str,
    layer: str,
    width: int,
    method: str,
    strength: float,
) -> None:
    handle, prompts = sae(layer, width), host.prompts("glasses")
    plain = encode(clip, prompt)
    source = plain[0][0].clone()
    expected = encode(host.before(clip, handle, prompts, strength, method)[0], prompt)
    result, found = host.after(plain, clip, handle, prompts, strength, method, text=prompt)
    assert torch.allclose(result[0][0], expected[0][0], atol=1e-5)
    assert not torch.allclose(result[0][0], source, atol=1e-3)
    assert torch.equal(plain[0][0], source)
    assert torch.equal(result[0][1]["pooled_output"], plain[0][1]["pooled_output"])
    assert "glasses" in found


def test_without_the_text_only_the_first_tokens_stay(host: SimpleNamespace, clip: Any, sae: Any) -> None:
    plain = encode(clip, LONG)
    result, _ = host.after(plain, clip, sae("layers.2", 64), host.prompts("glasses"), 1.0)
    changed = (result[0][0] != plain[0][0]).any(-1)[0].reshape(-1, 77)
    assert not changed[:, 0].any()
    assert changed[:, 1:].all()


def test_strength_0_is_the_same_object(host: SimpleNamespace, clip: Any, sae: Any) -> None:
    plain = encode(clip, "glasses")
    assert host.after(plain, clip, sae("layers.2", 64), host.prompts("glasses"), 0.0)[0] is plain


def test_a_layer_that_is_not_consumed_is_refused(
    host: SimpleNamespace, clip: Any, sae: Any, mini: SimpleNamespace
) -> None:
    with pytest.raises(ValueError, match=r"reads layers\.1 of clip_l.*contains layer 2"):
        host.after(encode(clip, "hat"), clip, sae("layers.1", 64), host.prompts("glasses"), 1.0)
    skipped = clip.clone()
    skipped.clip_layer(-3)
    with pytest.raises(ValueError, match="contains layer 1"):
        host.after(encode(skipped, "hat"), skipped, sae("layers.2", 64), host.prompts("glasses"), 1.0)
    with pytest.raises(ValueError, match="last layer after a norm"):
        host.after(encode(mini.clip, "hat"), mini.clip, sae("layers.3", 192), host.prompts("glasses"), 1.0)


def test_other_mistakes_are_said(host: SimpleNamespace, clip: Any, sae: Any) -> None:
    handle, prompts, plain = sae("layers.2", 64), host.prompts("glasses"), encode(clip, "hat")
    for change, words in (
        ({"tokens": "content"}, "write the text"),
        ({"tokens": "few"}, "auto, content, all"),
        ({"text": LONG}, "77 positions"),
    ):
        with pytest.raises(ValueError, match=words):
            host.after(plain, clip, handle, prompts, 1.0, **change)
    narrow: list[Any] = [[torch.zeros(1, 77, 32), {}]]
    with pytest.raises(ValueError, match="32 wide"):
        host.after(narrow, clip, handle, prompts, 1.0)


def test_weights_of_the_prompt_stay_what_they_are(host: SimpleNamespace, clip: Any, sae: Any) -> None:
    """The empty prompt beside a weighted one is not steered: empty + weight * (steered - empty)."""
    handle, prompts = sae("layers.2", 64), host.prompts("glasses")
    steered = host.before(clip, handle, prompts, -0.5, "paper")[0]
    empty, plain = encode(clip, "")[0][0], encode(steered, "round glasses")[0][0]
    weighted = encode(steered, "round (glasses:1.4)")[0][0]
    expected: Tensor = empty + (plain - empty) * 1.4
    assert torch.allclose(weighted[:, 2, :64], expected[:, 2, :64], atol=1e-4)
    assert torch.allclose(weighted[:, 1, :64], plain[:, 1, :64], atol=1e-4)


def test_both_encoders_joined(host: SimpleNamespace, clip: Any, sae: Any) -> None:
    """As Concept Steerers read SDXL: one SAE over both encoders' hidden states side by side."""
    handle, prompts = sae("clip_l.layers.2+clip_g.layers.3", 160), host.prompts("glasses")
    plain = encode(clip, "a portrait")
    expected = encode(host.before(clip, handle, prompts, -0.5, "paper")[0], "a portrait")
    result, _ = host.after(plain, clip, handle, prompts, -0.5, "paper")
    assert torch.allclose(result[0][0], expected[0][0], atol=1e-5)
    assert not torch.equal(result[0][0], plain[0][0])
    with pytest.raises(ValueError, match=r"layers\.2 of clip_g"):
        host.after(plain, clip, sae("clip_l.layers.2+clip_g.layers.2", 160), prompts, -0.5, "paper")
