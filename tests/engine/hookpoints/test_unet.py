"""Names of a UNet's hook points, on skeletons of SD 1.x and SDXL built the way ComfyUI builds them."""

from __future__ import annotations

import pytest
from torch import nn

from comfy_revelio import RevelioError, hookpoints


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_channels = channels
        self.transformer_blocks = nn.ModuleList([nn.Linear(channels, channels)])


class ResBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.channels, self.out_channels = channels, out_channels
        self.in_layers, self.out_layers = nn.Sequential(nn.SiLU()), nn.Sequential(nn.SiLU())
        self.updown = False


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.out_channels = channels


class Upsample(Downsample):
    pass


class UNet(nn.Module):
    """width: channels; mult: per level; depth: transformers per level, 0 for none; two ResBlocks a level."""

    def __init__(self, width: int, mult: tuple[int, ...], depth: tuple[int, ...]) -> None:
        super().__init__()
        ch, skips = width, [width]
        blocks = [nn.Sequential(nn.Conv2d(4, width, 3))]
        for level, m in enumerate(mult):
            for _ in range(2):
                layers: list[nn.Module] = [ResBlock(ch, m * width)]
                ch = m * width
                layers += [SpatialTransformer(ch)] if depth[level] else []
                blocks.append(nn.Sequential(*layers))
                skips.append(ch)
            if level != len(mult) - 1:
                blocks.append(nn.Sequential(Downsample(ch)))
                skips.append(ch)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = nn.Sequential(ResBlock(ch, ch), SpatialTransformer(ch), ResBlock(ch, ch))
        blocks = []
        for level, m in reversed(list(enumerate(mult))):
            for i in range(3):
                layers = [ResBlock(ch + skips.pop(), m * width)]
                ch = m * width
                layers += [SpatialTransformer(ch)] if depth[level] else []
                layers += [Upsample(ch)] if level and i == 2 else []
                blocks.append(nn.Sequential(*layers))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(nn.GroupNorm(1, width))


@pytest.fixture
def sd1() -> UNet:
    return UNet(8, (1, 2, 4, 4), (1, 1, 1, 0))


@pytest.fixture
def sdxl() -> UNet:
    return UNet(8, (1, 2, 4), (0, 2, 10))


# From the papers' names to ComfyUI's.
SD1 = {
    "mid_block.attentions.0": "middle_block.1",
    "mid_block": "middle_block.2",
    "up_blocks.0": "output_blocks.2.1",
    "up_blocks.1": "output_blocks.5.2",
    "up_blocks.2": "output_blocks.8.2",
    "up_blocks.3": "output_blocks.11.1",
    "unet.up_blocks.1.attentions.1": "output_blocks.4.1",
    "up_blocks.1.attentions.2": "output_blocks.5.1",
    "down_blocks.0.attentions.1": "input_blocks.2.1",
    "down_blocks.3.resnets.0": "input_blocks.10.0",
}
SDXL = {
    "unet.down_blocks.2.attentions.1": "input_blocks.8.1",
    "unet.mid_block.attentions.0": "middle_block.1",
    "unet.up_blocks.0.attentions.0": "output_blocks.0.1",
    "unet.up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0": "output_blocks.2.2",
}


@pytest.mark.parametrize("alias", SD1)
def test_papers_names_for_sd1(sd1: UNet, alias: str) -> None:
    assert hookpoints.resolve(sd1, alias).name == SD1[alias]


@pytest.mark.parametrize("alias", SDXL)
def test_papers_names_for_sdxl(sdxl: UNet, alias: str) -> None:
    assert hookpoints.resolve(sdxl, alias).name == SDXL[alias]


def test_every_point_is_a_leaf_with_its_own_names_and_width(sd1: UNet) -> None:
    points = hookpoints.list(sd1)
    modules = [hookpoints.module_of(sd1, point) for point in points]
    assert len(points) == 8 + 3 + 6 + 3 + 12 + 9 + 3  # down, its samplers, attentions; middle; up likewise
    names = [name for point in points for name in (point.name, point.title, *point.aliases)]
    assert len(set(names)) == len(names)
    for point, module in zip(points, modules, strict=True):
        assert isinstance(module, SpatialTransformer | ResBlock | Downsample)
        width = module.in_channels if isinstance(module, SpatialTransformer) else module.out_channels
        assert (point.width, point.stage) == (width, "unet")
        assert all(hookpoints.resolve(sd1, name) == point for name in (point.name, *point.aliases))
    titles = {point.name: point.title for point in points}
    assert titles["middle_block.1"] == "middle - attention 0"
    assert titles["output_blocks.4.1"] == "up 1 - attention 1"
    assert titles["input_blocks.3.0"] == "down 0 - downsampler"


def test_any_called_module_can_be_named_by_its_path(sd1: UNet) -> None:
    point = hookpoints.resolve(sd1, " diffusion_model.middle_block.1.transformer_blocks.0 ")
    assert point.name == "middle_block.1.transformer_blocks.0" and point.width == 32
    assert isinstance(hookpoints.module_of(sd1, point), nn.Linear)


@pytest.mark.parametrize(
    "name", ["middle_block", "output_blocks", "output_blocks.4", "middle_block.1.transformer_blocks"]
)
def test_containers_that_are_never_called_are_refused(sd1: UNet, name: str) -> None:
    with pytest.raises(RevelioError, match="never called"):
        hookpoints.resolve(sd1, name)


def test_a_wrong_name_brings_the_nearest(sd1: UNet) -> None:
    with pytest.raises(RevelioError, match=r"midle_block\.1.*middle_block\.1"):
        hookpoints.resolve(sd1, "midle_block.1")
    with pytest.raises(RevelioError, match=r"up_blocks\.1\.attentions"):
        hookpoints.resolve(sd1, "up_blocks.1.atentions.1")
    for name in ("", "  ", "zzz", "input_blocks.99.0", "output_blocks..1", "7"):
        with pytest.raises(RevelioError, match=r"Unknown hook point|No hook point given"):
            hookpoints.resolve(sd1, name)


def test_a_question_mark_brings_all(sd1: UNet) -> None:
    """By title and name, in the order in which they are computed, and each can be written as it stands."""
    with pytest.raises(RevelioError) as raised:
        hookpoints.resolve(sd1, " ? ")
    lines = str(raised.value).splitlines()[1:]
    points = hookpoints.list(sd1)
    assert lines == [f"{point.title} = {point.name}" for point in points]
    assert [hookpoints.resolve(sd1, line.split(" = ")[0]) for line in lines] == points


def test_a_unet_without_a_middle_or_without_attention_there(sd1: UNet) -> None:
    """KOALA and SSD-1B are distilled that far."""
    sd1.middle_block = nn.Sequential(sd1.middle_block[0])
    assert hookpoints.resolve(sd1, "mid_block").name == "middle_block.0"
    sd1.middle_block = None  # type: ignore[assignment]
    assert not any(point.name.startswith("middle") for point in hookpoints.list(sd1))


def test_the_difference_is_offered_where_both_shapes_agree(sd1: UNet) -> None:
    captured = {point.name: point.captured for point in hookpoints.list(sd1)}
    assert captured["middle_block.1"] == captured["middle_block.0"] == ("output", "diff")
    assert captured["input_blocks.3.0"] == captured["output_blocks.3.0"] == ("output",)


def test_a_point_of_another_model_is_noticed(sd1: UNet) -> None:
    point = hookpoints.resolve(sd1, "output_blocks.11.1")
    with pytest.raises(RevelioError, match=r"output_blocks\.11\.1"):
        hookpoints.module_of(UNet(8, (1, 2), (1, 1)), point)
