"""Taps on every kind of text encoder that ComfyUI has: CLIP, T5, language models, and two joined."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..architectures import randomize
from ..conftest import hooks_on

CLIP_L = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
CLIP_G = {**CLIP_L, "num_hidden_layers": 4, "hidden_size": 48}
T5 = {"d_model": 40, "d_ff": 64, "d_kv": 8, "num_heads": 2, "num_layers": 3}
QWEN = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
SMALL = {
    "clip_l_model_config": CLIP_L,
    "clip_g_model_config": CLIP_G,
    "t5xxl_model_config": T5,
    "qwen3_4b_model_config": QWEN,
    "dtype": torch.float32,
}


def _classes(kind: str) -> tuple[Any, Any]:
    """Tokenizer and text model of a family."""
    import comfy.sdxl_clip
    import comfy.text_encoders.flux
    import comfy.text_encoders.sd3_clip
    import comfy.text_encoders.z_image

    encoders = comfy.text_encoders
    return {
        "sdxl": lambda: (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
        "sd3": lambda: (encoders.sd3_clip.SD3Tokenizer, encoders.sd3_clip.sd3_clip(t5=False)),
        "flux": lambda: (encoders.flux.FluxTokenizer, encoders.flux.flux_clip(dtype_t5=torch.float32)),
        "z-image": lambda: (encoders.z_image.ZImageTokenizer, encoders.z_image.te()),
    }[kind]()


@pytest.fixture(scope="module")
def clips(comfyui: Any) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in made:
            import comfy.sd
            from comfy.supported_models_base import ClipTarget

            made[kind] = comfy.sd.CLIP(ClipTarget(*_classes(kind)), model_options=dict(SMALL))
            randomize(made[kind].cond_stage_model, seed=1)
        return made[kind]

    return get


@pytest.fixture
def text(pack: Any) -> Any:
    return pack("comfy_revelio.host.text.encoder_taps")


def encode(clip: Any, prompt: str) -> Tensor:
    """All numbers of the conditioning, including the pooled output."""
    states, more = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0]
    pooled = more.get("pooled_output")
    return torch.cat([states.flatten(), *([] if pooled is None else [pooled.flatten()])])


def heard(clip: Any, modules: list[nn.Module], prompt: str) -> list[Tensor]:
    """What plain hooks on some layers see while a prompt is encoded."""
    states: dict[int, Tensor] = {}

    def hook(number: int) -> Callable[..., None]:
        def look(_module: nn.Module, _args: Any, output: Any) -> None:
            states[number] = (output[0] if isinstance(output, tuple) else output).clone()

        return look

    with ExitStack() as stack:
        for number, module in enumerate(modules):
            handle = module.register_forward_hook(hook(number))
            stack.callback(handle.remove)
        encode(clip, prompt)
    return [states[number] for number in range(len(modules))]


def layer(clip: Any, encoder: str, number: int) -> nn.Module:
    transformer = getattr(clip.cond_stage_model, encoder).transformer
    if hasattr(transformer, "text_model"):
        return transformer.text_model.encoder.layers[number]
    if hasattr(transformer, "encoder"):
        return transformer.encoder.block[number]
    return transformer.model.layers[number]


# family, the name of the layer, its width, the encoder that has it, its number
PLACEMENTS = [
    ("sd3", "layers.1", 32, "clip_l", 1),
    ("sd3", "text_encoder_2.text_model.encoder.layers.2", 48, "clip_g", 2),
    ("flux", "text_encoder_2.encoder.block.1", 40, "t5xxl", 1),
    ("flux", "t5xxl.block.0", 40, "t5xxl", 0),
    ("flux", "clip_l.layers.1", 32, "clip_l", 1),
    ("z-image", "text_encoder.model.layers.1", 32, "qwen3_4b", 1),
    ("z-image", "qwen3_4b.layers.2", 32, "qwen3_4b", 2),
]


@pytest.mark.parametrize(("family", "name", "width", "encoder", "number"), PLACEMENTS)
def test_reading_and_steering(
    clips: Any, text: Any, family: str, name: str, width: int, encoder: str, number: int
) -> None:
    clip = clips(family)
    found = text.resolve_layer(clip, name, width, "the SAE")
    assert found.encoder == encoder and found.hook_point.width == width
    prompts = ["round glasses", "a portrait of a man with a long grey beard and a hat"]
    hidden, keep = text.text_hidden(clip, prompts, found)
    for row, prompt in enumerate(prompts):
        (plain,) = heard(clip, [layer(clip, encoder, number)], prompt)
        assert torch.allclose(hidden[row, : plain.shape[1]], plain[0], atol=1e-5)
        assert not hidden[row, plain.shape[1] :].any() and not keep[row, plain.shape[1] :].any()
    assert 0 < keep[0].sum() < keep[1].sum()
    before = [encode(clip, prompt) for prompt in prompts]
    steered = text.steer_text(clip, found, lambda states, kept: states + 3.0 * kept[..., None])
    same = text.steer_text(clip, found, lambda states, kept: states)
    for prompt, plain in zip(prompts, before, strict=True):
        assert not torch.equal(encode(steered, prompt), plain)
        assert torch.equal(encode(same, prompt), plain)
        assert torch.equal(encode(clip, prompt), plain)
    assert hooks_on(clip.cond_stage_model) == 0


@pytest.mark.parametrize("placement", PLACEMENTS[:3], ids=lambda placement: placement[3])
def test_weights_are_measured_from_the_unsteered_empty_prompt(clips: Any, text: Any, placement: Any) -> None:
    """out = empty + weight * (steered - empty), so two weights show where it starts.

    ComfyUI gives no weights to language models.
    """
    family, name, width, _, _ = placement
    clip = clips(family)
    found = text.resolve_layer(clip, name, width, "the SAE")
    steered = text.steer_text(clip, found, lambda states, kept: states + 3.0)
    starts, ends = [], []
    for one in (clip, steered):
        plain, more = (
            one.encode_from_tokens(one.tokenize(prompt))
            for prompt in ("round glasses", "(round glasses:1.5)")
        )
        assert not torch.allclose(plain, more, atol=1e-3)
        starts.append(plain - (more - plain) / 0.5)
        ends.append(more)
    words = slice(1, 3) if family == "sd3" else slice(0, 2)  # T5 has no token for the start
    assert torch.allclose(starts[0][:, words], starts[1][:, words], atol=1e-3)
    assert not torch.allclose(ends[0][:, words], ends[1][:, words], atol=1e-2)


def _onto(rest: Tensor, rows: Tensor) -> Tensor:
    """The part of the rows that is in the span of `rest`."""
    return torch.linalg.lstsq(rest.T.double(), rows.T.double(), driver="gelsd").solution.T.float() @ rest


@pytest.mark.parametrize("method", ["contrast", "paper"])
@pytest.mark.parametrize(
    ("family", "name", "width"), [("flux", "t5xxl.block.1", 40), ("z-image", "layers.1", 32)]
)
def test_a_concept_in_t5_and_in_a_language_model(
    clips: Any, text: Any, pack: Any, family: str, name: str, width: int, method: str
) -> None:
    """The whole way, with an SAE of one feature that fires where prompts have the word."""
    clip = clips(family)
    layer = text.resolve_layer(clip, name, width, "the SAE")
    (with_it, kept), (without, others) = (
        text.text_hidden(clip, [word], layer) for word in ("glasses", "hat")
    )
    rest = without[0, others[0]]
    alike = nn.functional.normalize(with_it[0, kept[0]] - _onto(rest, with_it[0, kept[0]]), dim=1)
    firing = (with_it[0, kept[0]] * alike).sum(1)
    direction, threshold = alike[firing.argmax()], firing.max() / 2
    zeros = torch.zeros(width)
    make = pack("comfy_revelio.dictionary")
    weights = (direction[None], -threshold[None], direction[None], zeros, zeros)
    dictionary = make.Dictionary(*weights, make.Activation("topk_relu", 1), provenance=make.Provenance(name))
    sae = pack("comfy_revelio.host.sae_files").handle(dictionary, "one.safetensors")
    concept = pack("comfy_revelio.host.text.concept")
    prompts = concept.ConceptPrompts("glasses", *(("glasses", "hat") if method == "contrast" else ()))
    plain = encode(clip, "round glasses")
    steered, _, _ = concept.steer_concept(clip, sae, prompts, 2.0, method, tokens="content")
    (before, keep), (after, _) = (text.text_hidden(one, ["round glasses"], layer) for one in (clip, steered))
    moved = after - before
    places = (moved != 0).any(-1)
    assert places.any() and not places[~keep].any()
    assert method == "paper" or torch.equal(places, keep)
    assert torch.allclose(moved, (moved @ direction)[..., None] * direction, atol=1e-3)
    assert not torch.equal(encode(steered, "round glasses"), plain)
    assert torch.equal(encode(clip, "round glasses"), plain)
    assert hooks_on(clip.cond_stage_model) == 0


def test_the_right_encoder_is_asked_for(clips: Any, text: Any) -> None:
    with pytest.raises(ValueError, match=r"reads the text encoder t5xxl, but this CLIP has clip_l, clip_g"):
        text.resolve_layer(clips("sdxl"), "t5xxl.block.1", 40, "the SAE")
    with pytest.raises(ValueError, match=r"width 99.*width 32 and 48"):
        text.resolve_layer(clips("sdxl"), "layers.1", 99, "the SAE")
    with pytest.raises(ValueError, match=r"width 2048.*width 80"):
        text.resolve_layer(clips("sdxl"), "clip_l.layers.1+clip_g.layers.2", 2048, "the SAE")
    with pytest.raises(ValueError, match=r"block\.0 to block\.2"):
        text.resolve_layer(clips("flux"), "t5xxl.block.9", 40, "the SAE")


LONG = "a portrait of a man with round glasses, " * 16


class TestTwoEncodersJoined:
    """SDXL: the hidden states of a layer of CLIP-L with those of one of CLIP-G appended."""

    @pytest.fixture
    def sdxl(self, clips: Any, text: Any) -> SimpleNamespace:
        clip = clips("sdxl")
        modules = [layer(clip, "clip_l", 1), layer(clip, "clip_g", 2)]
        found = text.resolve_layer(clip, "text_encoder.text_model.encoder.layers.1.2", 80, "the SAE")
        return SimpleNamespace(clip=clip, modules=modules, layer=found)

    @pytest.mark.parametrize("prompt", ["round glasses", "(round:1.3) glasses", LONG])
    def test_reading(self, sdxl: Any, text: Any, prompt: str) -> None:
        hidden, keep = text.text_hidden(sdxl.clip, [prompt], sdxl.layer)
        plain = torch.cat(heard(sdxl.clip, sdxl.modules, prompt), dim=-1)
        assert hidden.shape[1:] == (77, 80) and keep.shape == hidden.shape[:2]
        assert torch.allclose(hidden, plain[: len(hidden)], atol=1e-5)

    @pytest.mark.parametrize("prompt", ["round glasses", LONG])
    def test_steering(self, sdxl: Any, text: Any, prompt: str) -> None:
        """A change that uses both halves: each is moved by the other."""

        def swap(states: Tensor, _keep: Tensor) -> Tensor:
            low, high = states[..., :32], states[..., 32:]
            return torch.cat([low + high[..., :32], high + low.mean(-1, keepdim=True)], dim=-1)

        low, high = heard(sdxl.clip, sdxl.modules, prompt)
        moves = [high[..., :32], low.mean(-1, keepdim=True)]
        before = encode(sdxl.clip, prompt)
        with ExitStack() as stack:
            for module, move in zip(sdxl.modules, moves, strict=True):
                handle = module.register_forward_hook(lambda _m, _a, out, move=move: out + move)
                stack.callback(handle.remove)
            expected = encode(sdxl.clip, prompt)
        steered = text.steer_text(sdxl.clip, sdxl.layer, swap)
        assert torch.allclose(encode(steered, prompt), expected, atol=1e-4)
        assert not torch.allclose(expected, before, atol=1e-2)
        assert torch.equal(encode(sdxl.clip, prompt), before)
        assert hooks_on(sdxl.clip.cond_stage_model) == 0

    def test_changing_nothing_and_failing(self, sdxl: Any, text: Any) -> None:
        def fail(_states: Tensor, _keep: Tensor) -> Tensor:
            raise RuntimeError("inside")

        same = text.steer_text(sdxl.clip, sdxl.layer, lambda states, keep: states)
        assert torch.equal(encode(same, "(a:1.2) hat"), encode(sdxl.clip, "(a:1.2) hat"))
        with pytest.raises(RuntimeError, match="inside"):
            encode(text.steer_text(sdxl.clip, sdxl.layer, fail), "a hat")
        assert hooks_on(sdxl.clip.cond_stage_model) == 0

    def test_the_papers_method(self, sdxl: Any, pack: Any) -> None:
        """The whole way from an SAE of 80 numbers to two CLIPs, of which one is steered the other way."""
        make = pack("comfy_revelio.dictionary")
        dictionary = make.Dictionary(
            torch.randn(64, 80), torch.zeros(64), torch.randn(64, 80), torch.zeros(80), torch.zeros(80),
            make.Activation("topk_relu", 8), provenance=make.Provenance("clip_l.layers.1+clip_g.layers.2"),
        )  # fmt: skip
        sae = pack("comfy_revelio.host.sae_files").handle(dictionary, "joined.safetensors")
        concept = pack("comfy_revelio.host.text.concept")
        results = concept.steer_concept(sdxl.clip, sae, concept.ConceptPrompts("glasses"), 0.1, "paper")
        states = [encode(clip, "a hat") for clip in (sdxl.clip, *results[:2])]
        assert len({float(state.sum()) for state in states}) == 3
