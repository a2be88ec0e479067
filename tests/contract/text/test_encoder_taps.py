"""Taps on a real CLIP: the source stays as it was, and the tap survives what other nodes do to a CLIP."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

LAYER = "layers.3"
LONG = ", ".join(["a portrait with round glasses and a long beard"] * 16)


@pytest.fixture
def text(pack: Any) -> Any:
    return pack("comfy_revelio.host.text.encoder_taps")


@pytest.fixture
def layer(text: Any, mini: SimpleNamespace) -> Any:
    return text.resolve_layer(mini.clip, LAYER, 192, "the SAE")


def encode(clip: Any, prompt: str) -> Tensor:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]


def hooks(clip: Any) -> int:
    return sum(len(module._forward_hooks) for module in clip.patcher.model.modules())


def shift(hidden: Tensor, keep: Tensor) -> Tensor:
    return hidden + keep[..., None] * 1.0


class TestTap:
    def test_the_source_stays_bit_identical(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        before = encode(mini.clip, "glasses")
        tapped = text.steer_text(mini.clip, layer, shift)
        changed = encode(tapped, "glasses")
        assert not torch.equal(changed, before)
        assert torch.equal(encode(mini.clip, "glasses"), before)
        assert torch.equal(encode(tapped, "glasses"), changed)
        assert hooks(mini.clip) == 0

    def test_changing_nothing_is_bit_identical(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        tapped = text.steer_text(mini.clip, layer, lambda hidden, keep: hidden)
        assert torch.equal(encode(tapped, "(glasses:1.3)"), encode(mini.clip, "(glasses:1.3)"))

    def test_a_failing_encoding_leaves_no_hook(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        def fail(hidden: Tensor, keep: Tensor) -> Tensor:
            raise RuntimeError("inside")

        with pytest.raises(RuntimeError, match="inside"):
            encode(text.steer_text(mini.clip, layer, fail), "glasses")
        assert hooks(mini.clip) == 0

    def test_only_content_tokens_are_marked(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        seen: list[Tensor] = []

        def look(hidden: Tensor, keep: Tensor) -> Tensor:
            seen.append(keep)
            return hidden

        tapped = text.steer_text(mini.clip, layer, look)
        encode(tapped, "round glasses")
        encode(tapped, "")
        encode(tapped, LONG)
        assert seen[0].shape == (1, 77)
        assert seen[0][0].nonzero().flatten().tolist() == [1, 2]
        assert not seen[1].any()
        assert seen[2].shape[0] >= 2
        assert not seen[2][:, 0].any()

    def test_weighted_prompts(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        """The empty prompt beside it is not steered: out = empty + weight * (steered - empty)."""
        tapped = text.steer_text(mini.clip, layer, lambda hidden, keep: hidden + 1.0)
        plain, weighted = encode(tapped, "glasses"), encode(tapped, "(glasses:1.3)")
        empty = encode(mini.clip, "")
        assert torch.allclose(weighted[0, 1], empty[0, 1] + 1.3 * (plain[0, 1] - empty[0, 1]), atol=1e-4)

    def test_long_prompts_are_steered_in_every_section(
        self, mini: SimpleNamespace, text: Any, layer: Any
    ) -> None:
        tapped = text.steer_text(mini.clip, layer, shift)
        plain, steered = encode(mini.clip, LONG), encode(tapped, LONG)
        assert plain.shape[1] >= 154
        for section in range(plain.shape[1] // 77):
            assert not torch.equal(plain[:, section * 77 + 1], steered[:, section * 77 + 1])

    def test_two_taps_act_in_graph_order(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        both = text.steer_text(
            text.steer_text(mini.clip, layer, lambda h, k: h + 1.0), layer, lambda h, k: h * 0.0
        )
        zero = text.steer_text(mini.clip, layer, lambda h, k: h * 0.0)
        assert torch.equal(encode(both, "glasses"), encode(zero, "glasses"))


class TestOtherNodes:
    def test_clone_and_skip_layers(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        """What CLIPSetLastLayer does: the tap stays, and acts if its layer is still used."""
        from nodes import CLIPSetLastLayer

        tapped = text.steer_text(mini.clip, layer, shift)
        (skipped,) = CLIPSetLastLayer().set_last_layer(tapped, -2)
        (plain,) = CLIPSetLastLayer().set_last_layer(mini.clip, -2)
        assert not torch.equal(encode(skipped, "glasses"), encode(plain, "glasses"))
        (too_early,) = CLIPSetLastLayer().set_last_layer(tapped, -4)
        (early,) = CLIPSetLastLayer().set_last_layer(mini.clip, -4)
        assert torch.equal(encode(too_early, "glasses"), encode(early, "glasses"))

    @pytest.mark.parametrize("lora_first", [False, True])
    def test_loras(self, mini: SimpleNamespace, text: Any, layer: Any, lora_first: bool) -> None:
        import comfy.sd

        before = encode(mini.clip, "glasses")
        key = "lora_te_text_model_encoder_layers_1_mlp_fc1"
        lora = {
            f"{key}.lora_up.weight": torch.randn(768, 4),
            f"{key}.lora_down.weight": torch.randn(4, 192),
            f"{key}.alpha": torch.tensor(4.0),
        }

        def with_lora(clip: Any) -> Any:
            return comfy.sd.load_lora_for_models(None, clip, lora, 0.0, 1.0)[1]

        tapped = text.steer_text(mini.clip, layer, shift)
        both = text.steer_text(with_lora(mini.clip), layer, shift) if lora_first else with_lora(tapped)
        results = [encode(clip, "glasses") for clip in (both, with_lora(mini.clip), tapped, mini.clip)]
        assert torch.equal(results[3], before)
        for number, result in enumerate(results):
            assert all(not torch.equal(result, other) for other in results[:number])

    def test_the_text_model_answers_as_before(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        tapped = text.steer_text(mini.clip, layer, shift)
        assert tapped.get_sd().keys() == mini.clip.get_sd().keys()
        assert tapped.cond_stage_model.clip_l is mini.clip.cond_stage_model.clip_l
        assert tapped.get_key_patches().keys() == mini.clip.get_key_patches().keys()


class TestReading:
    def test_hidden_states_are_those_of_the_layer(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        seen: list[Tensor] = []
        module = mini.clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers[3]
        hook = module.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
        try:
            encode(mini.clip, "round glasses")
        finally:
            hook.remove()
        hidden, keep = text.text_hidden(mini.clip, ["round glasses"], layer)
        assert torch.equal(hidden, seen[0])
        assert keep.sum() == 2

    def test_many_prompts_weights_and_long_ones(self, mini: SimpleNamespace, text: Any, layer: Any) -> None:
        prompts = ["glasses", "(glasses:1.5)", LONG, *["a beard"] * 40]
        hidden, keep = text.text_hidden(mini.clip, prompts, layer)
        sections = len(mini.clip.tokenize(LONG)["l"])
        assert hidden.shape == (42 + sections, 77, 192)
        assert keep.shape == hidden.shape[:2]
        assert torch.allclose(hidden[0], hidden[1], atol=1e-5)

    def test_a_clip_of_two_encoders(self, text: Any, pack: Any) -> None:
        """SDXL: the encoder of the SAE's width is read; clip_g pads with another token than its end."""
        import comfy.sd
        import comfy.sdxl_clip
        from comfy.supported_models_base import ClipTarget

        small = {"num_hidden_layers": 3, "num_attention_heads": 2}
        clip = comfy.sd.CLIP(
            ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
            model_options={
                "clip_l_model_config": {**small, "hidden_size": 64, "intermediate_size": 128},
                "clip_g_model_config": {**small, "hidden_size": 96, "intermediate_size": 128},
                "dtype": torch.float32,
            },
        )
        pack("comfy_revelio.host.mini.random_weights").fill_with_random_weights(clip.cond_stage_model)
        for width, name in ((64, "clip_l"), (96, "clip_g")):
            found = text.resolve_layer(clip, "layers.1", width, "the SAE")
            assert found.encoder == name
            before = encode(clip, "round (glasses:1.2)")
            tapped = text.steer_text(clip, found, shift)
            assert not torch.equal(encode(tapped, "round (glasses:1.2)"), before)
            assert torch.equal(encode(clip, "round (glasses:1.2)"), before)
            _, keep = text.text_hidden(clip, ["round glasses"], found)
            assert keep[0].nonzero().flatten().tolist() == [1, 2]


class TestErrors:
    def test_wrong_width(self, mini: SimpleNamespace, text: Any) -> None:
        with pytest.raises(ValueError, match=r"width 768.*width 192"):
            text.resolve_layer(mini.clip, LAYER, 768, "the SAE")

    def test_unknown_layer(self, mini: SimpleNamespace, text: Any) -> None:
        with pytest.raises(ValueError, match=r"layers.0 to layers.5"):
            text.resolve_layer(mini.clip, "layers.40", 192, "the SAE")

    def test_an_sae_of_the_image_model(self, mini: SimpleNamespace, text: Any) -> None:
        with pytest.raises(ValueError, match=r"reads middle_block.1, which is not a layer"):
            text.resolve_layer(mini.clip, "middle_block.1", 192, "the SAE")
