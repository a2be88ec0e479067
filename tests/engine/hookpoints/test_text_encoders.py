"""Names of a text encoder's layers, whatever wraps them."""

from __future__ import annotations

import pytest
from torch import nn

from comfy_revelio import RevelioError, hookpoints
from comfy_revelio.hookpoints.text_encoders import encoder_named, is_layer, parts_of


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width)


def _holding(**parts: object) -> nn.Module:
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


@pytest.fixture
def transformer() -> nn.Module:
    encoder = _holding(layers=nn.ModuleList([Layer(24) for _ in range(6)]))
    return _holding(text_model=_holding(embeddings=nn.Embedding(2, 2), encoder=encoder))


def test_layers_are_found_at_any_depth(transformer: nn.Module) -> None:
    expected = list(transformer.text_model.encoder.layers)  # type: ignore[union-attr,arg-type]
    inner = _holding(transformer=transformer)
    outer = _holding(clip="clip_l", clip_l=inner)
    for model in (transformer.text_model, transformer, inner, outer):
        points = hookpoints.list_text(model)  # type: ignore[arg-type]
        assert [point.name for point in points] == [f"layers.{i}" for i in range(6)]
        assert {(point.width, point.stage) for point in points} == {(24, "text")}
        assert [hookpoints.module_of(model, point) for point in points] == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "layers.4",
        " layers.4 ",
        "encoder.layers.4",
        "text_model.encoder.layers.4",
        "text_encoder.text_model.encoder.layers.4",
        "text_encoder_2.text_model.encoder.layers.4",
        "cond_stage_model.clip_l.transformer.text_model.encoder.layers.4",
    ],
)
def test_all_spellings_mean_the_layer(transformer: nn.Module, name: str) -> None:
    assert hookpoints.resolve_text(transformer, name).name == "layers.4"


@pytest.mark.parametrize(
    "name", ["layers.6", "layers.-1", "layers.", "4", "", "middle_block.1", "layers.4.mlp", "xlayers.4"]
)
def test_unknown_layers_name_the_known_ones(transformer: nn.Module, name: str) -> None:
    with pytest.raises(RevelioError, match=r"layers\.0 to layers\.5"):
        hookpoints.resolve_text(transformer, name)


def test_t5_bert_and_language_models() -> None:
    """Their layers have other names, and norms of queries that say nothing about the states."""
    layer = _holding(attention=_holding(q_norm=nn.LayerNorm(40)), norm=nn.LayerNorm(24))
    layers = nn.ModuleList([layer, layer])
    models = {
        "block": _holding(encoder=_holding(block=layers), shared=nn.Embedding(2, 2)),
        "layer": _holding(bert=_holding(encoder=_holding(layer=layers))),
        "layers": _holding(
            model=_holding(layers=layers, embed_tokens=nn.Embedding(2, 2)), visual=nn.Linear(1, 1)
        ),
    }
    for kind, model in models.items():
        points = hookpoints.list_text(model)
        assert [point.name for point in points] == [f"{kind}.0", f"{kind}.1"]
        assert {point.width for point in points} == {24}
        assert all(
            hookpoints.resolve_text(model, alias) == point for point in points for alias in point.aliases
        )
    assert hookpoints.resolve_text(models["block"], "text_encoder_2.encoder.block.1").name == "block.1"
    assert hookpoints.resolve_text(models["layers"], "qwen3_4b.transformer.model.layers.1").name == "layers.1"


def test_a_settings_word_is_no_list_of_layers() -> None:
    """ComfyUI's encoders have an attribute `layer` that says which one they read."""
    model = _holding(layer="last", transformer=_holding(model=_holding(layers=nn.ModuleList([Layer(8)]))))
    assert [point.name for point in hookpoints.list_text(model)] == ["layers.0"]


def test_layers_of_two_encoders_joined() -> None:
    joined = ["clip_l.layers.10", "clip_g.layers.28"]
    assert parts_of("clip_l.layers.10 + clip_g.layers.28") == joined
    assert parts_of("text_encoder.text_model.encoder.layers.10.28") == joined
    assert parts_of("layers.9") == ["layers.9"]
    assert is_layer("clip_l.layers.10+clip_g.layers.28") and not is_layer("layers.1+middle_block.1")
    assert [encoder_named(name) for name in joined] == ["clip_l", "clip_g"]
    assert encoder_named("t5xxl.block.22") == "t5xxl"
    assert encoder_named("text_encoder_2.encoder.block.22") == ""


def test_other_models_are_refused() -> None:
    with pytest.raises(RevelioError, match="not a supported text encoder"):
        hookpoints.list_text(nn.Linear(2, 2))
