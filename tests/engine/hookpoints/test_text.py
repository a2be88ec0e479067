"""Names of a text encoder's layers, whatever wraps them."""

from __future__ import annotations

import pytest
from torch import nn

from comfy_revelio import RevelioError, hookpoints


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


def test_other_models_are_refused() -> None:
    with pytest.raises(RevelioError, match="no CLIP-type"):
        hookpoints.list_text(nn.Linear(2, 2))
