"""Names of the transformers' hook points, on skeletons with the parts that tell the families apart."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from comfy_revelio import RevelioError, hookpoints

Named = dict[str, Any]


class Model(nn.Module):
    """A module with the given parts; a number stands for a list of that many blocks."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.ModuleList(Block() for _ in range(part)) if type(part) is int else part)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.img_mlp = nn.Linear(8, 8)
        self.inner = nn.Linear(8, 8)


def linear() -> nn.Module:
    return nn.Linear(8, 8)


def sized(model: Model, patch: Any = 2, **more: Any) -> Model:
    model.patch_size = patch
    for name, value in {"hidden_size": 8, **more}.items():
        setattr(model, name, value)
    return model


def flux() -> Model:
    return sized(Model(double_blocks=3, single_blocks=2, img_in=linear(), txt_in=linear(), time_in=linear()))


def sd3() -> Model:
    model = sized(Model(joint_blocks=3, x_embedder=linear(), context_embedder=nn.Identity()))
    model.joint_blocks[2].context_block = Model()  # type: ignore[index,union-attr]
    model.joint_blocks[2].context_block.pre_only = True  # type: ignore[index,union-attr]
    return model


def hunyuan_video() -> Model:
    refiner = Model(individual_token_refiner=linear())
    return sized(Model(double_blocks=1, single_blocks=1, img_in=linear(), txt_in=refiner), [1, 2, 2])


def z_image() -> Model:
    model = Model(layers=2, noise_refiner=2, context_refiner=2, cap_embedder=linear())
    return sized(model, pad_tokens_multiple=32)


FAMILIES = {
    # the model, the papers' name, our name, title
    "sd3": (sd3, "transformer_blocks.1", "joint_blocks.1", "double block 1, image"),
    "flux": (flux, "transformer_blocks.2", "double_blocks.2", "double block 2, image"),
    "flux single": (flux, "single_transformer_blocks.1", "single_blocks.1", "single block 1, image"),
    "flux text": (flux, "transformer_blocks.0.text", "double_blocks.0.txt", "double block 0, text"),
    "hunyuan video": (hunyuan_video, "transformer_blocks.0", "double_blocks.0", "double block 0, image"),
    "z-image": (z_image, "layers.1", "layers.1", "block 1, image"),
    "z-image refiner": (z_image, "context_refiner.0", "context_refiner.0", "text refiner 0"),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_papers_names(case: str) -> None:
    make, alias, name, title = FAMILIES[case]
    model = make()
    for spelling in (alias, f"transformer.{alias}", f" {name} ", f"model.diffusion_model.{name}", title):
        point = hookpoints.resolve(model, spelling)
        assert (point.name, point.title, point.width, point.stage) == (name, title, 8, "transformer")
        assert hookpoints.module_of(model, point) is model.get_submodule(point.module_path)


@pytest.mark.parametrize("make", [sd3, flux, hunyuan_video, z_image])
def test_every_name_is_its_own(make: Any) -> None:
    model = make()
    points = hookpoints.list(model)
    names = [name for point in points for name in {point.name, point.title, *point.aliases}]
    assert len(set(names)) == len(names)
    assert all(hookpoints.resolve(model, name) == point for point in points for name in point.aliases)


def test_two_streams_of_one_block() -> None:
    """Flux gives (img, txt), SD 3 (txt, img); SD 3's last block gives no text."""
    model = flux()
    image, text = (hookpoints.resolve(model, f"double_blocks.1{ending}") for ending in (".img", ".txt"))
    assert (image.element, text.element, image.stream, text.stream) == (0, 1, "image", "text")
    image, text = (hookpoints.resolve(sd3(), f"joint_blocks.1{ending}") for ending in ("", ".txt"))
    assert (image.element, text.element) == (1, 0)
    assert "joint_blocks.2.txt" not in [point.name for point in hookpoints.list(sd3())]


def test_inside_a_block() -> None:
    model = flux()
    assert hookpoints.resolve(model, "transformer_blocks.1.ff").name == "double_blocks.1.img_mlp"
    assert hookpoints.resolve(model, "single_transformer_blocks.1.inner").name == "single_blocks.1.inner"
    inner = hookpoints.resolve(model, "single_blocks.1.inner")
    assert inner.layout == hookpoints.resolve(model, "single_blocks.1").layout  # one sequence of both
    assert hookpoints.resolve(model, "double_blocks.1.inner").layout.exact  # of one stream, who knows which


def test_patches() -> None:
    assert hookpoints.resolve(flux(), "double_blocks.0").layout.patch == (1, 2, 2)
    assert hookpoints.resolve(hunyuan_video(), "double_blocks.0").layout.patch == (1, 2, 2)
    assert hookpoints.resolve(sized(flux(), [1, 1]), "double_blocks.0").layout.patch == (1, 1, 1)
    assert hookpoints.resolve(z_image(), "layers.0").layout.multiple == 32


def test_wrong_names_bring_the_nearest() -> None:
    with pytest.raises(RevelioError, match=r"double_blocks\.2"):
        hookpoints.resolve(flux(), "double_block.2")
    with pytest.raises(RevelioError, match=r"list of modules.*double_blocks\.0"):
        hookpoints.resolve(flux(), "double_blocks")
    with pytest.raises(RevelioError, match="Unknown hook point"):
        hookpoints.resolve(flux(), "double_blocks.99")


def test_a_model_of_no_known_family() -> None:
    """Its lists of like blocks are listed, and any module is found by its path."""
    inner = Model(experts=2)
    model = sized(Model(stages=3, embed=linear(), mixed=nn.ModuleList([linear(), Block()])), dim=8)
    model.stages[0].inner = inner  # type: ignore[index,union-attr]
    points = hookpoints.list(model)
    assert [point.name for point in points] == ["stages.0", "stages.1", "stages.2"]
    assert points[0].width == 8 and points[0].layout.exact
    assert hookpoints.resolve(model, "embed").width == 8
    assert hookpoints.resolve(model, "stages.0.inner.experts.1").name == "stages.0.inner.experts.1"
    bare = nn.Sequential(nn.Linear(3, 5))
    with pytest.raises(RevelioError, match="not of a known family"):
        hookpoints.list(bare)
    assert hookpoints.resolve(bare, "0").width == 5
