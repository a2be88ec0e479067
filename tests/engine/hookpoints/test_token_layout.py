"""Where tokens lie: each layout is written down as a picture of its sequence, and found again by numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.hookpoints import TokenGrid, TokenLayout, locate_tokens, token_count

LATENT = (2, 4, 5, 6)  # 3 x 3 tokens of 2 x 2 cells, after padding
PATCH = (1, 2, 2)


def sequence(*parts: Tensor) -> Tensor:
    """[2, T, 3] of the parts [2, t, 3]."""
    return torch.cat(parts, dim=1)


def tokens(count: int) -> Tensor:
    return torch.randn(2, count, 3)


def test_maps_go_row_by_row() -> None:
    map_ = torch.randn(2, 3, 4, 5)
    where = locate_tokens(map_, TokenLayout())
    assert where.grid == (4, 5)
    assert torch.equal(where.tokens(map_)[1, 2 * 5 + 3], map_[1, :, 2, 3])
    video = torch.randn(2, 3, 4, 5, 6)
    where = locate_tokens(video, TokenLayout())
    assert where.grid == (4, 5, 6)
    assert torch.equal(where.tokens(video)[0, (2 * 5 + 3) * 6 + 4], video[0, :, 2, 3, 4])
    assert locate_tokens(video[:, :, :1], TokenLayout()).grid == (5, 6)


def test_text_ahead_and_references_behind() -> None:
    """Flux: the embedder saw 9 tokens of the picture and 4 of a reference."""
    text, picture, reference = tokens(7), tokens(9), tokens(4)
    whole, seen = sequence(text, picture, reference), {"img_in": 13}
    image = locate_tokens(whole, TokenLayout(patch=PATCH, begin=("all", "img_in")), LATENT, seen)
    assert image == TokenGrid((3, 3), 7, 3)
    assert torch.equal(image.tokens(whole), picture)
    words = locate_tokens(whole, TokenLayout("text", PATCH, end=("all", "img_in")), LATENT, seen)
    assert words.grid == (1, 7) and torch.equal(words.tokens(whole), text)


def test_a_reference_ahead_and_text_behind() -> None:
    """HunyuanVideo: blocks put out 4 + 9 tokens of pictures."""
    reference, picture, text = tokens(4), tokens(9), tokens(7)
    whole, seen = sequence(reference, picture, text), {"double_blocks.0": 13}
    image = locate_tokens(whole, TokenLayout(patch=PATCH, begin=("double_blocks.0", "image")), LATENT, seen)
    assert torch.equal(image.tokens(whole), picture)
    words = locate_tokens(
        whole, TokenLayout("text", PATCH, ("double_blocks.0", ""), ("all", "")), LATENT, seen
    )
    assert torch.equal(words.tokens(whole), text)


def test_text_ahead_where_it_used_to_be_behind() -> None:
    """HunyuanVideo in newer versions of ComfyUI, which tell how much text stands ahead."""
    text, reference, picture = tokens(7), tokens(4), tokens(9)
    whole, seen = sequence(text, reference, picture), {"double_blocks.0": 13, "ahead": 7}
    image = TokenLayout(patch=PATCH, begin=("double_blocks.0", "image"), either_end=True)
    assert torch.equal(locate_tokens(whole, image, LATENT, seen).tokens(whole), picture)
    words = TokenLayout("text", PATCH, ("double_blocks.0", ""), ("all", ""), either_end=True)
    assert torch.equal(locate_tokens(whole, words, LATENT, seen).tokens(whole), text)


def test_padding_behind() -> None:
    """Z-Image: the picture's 9 tokens are filled up to 16."""
    text, picture, padding = tokens(16), tokens(9), tokens(7)
    whole = sequence(text, picture, padding)
    where = locate_tokens(whole, TokenLayout(patch=PATCH, begin=("all", "padded"), multiple=16), LATENT)
    assert torch.equal(where.tokens(whole), picture)


def test_a_reference_to_the_right() -> None:
    """HiDream: rows of 3 + 2 tokens."""
    picture, reference, text = torch.randn(2, 3, 3, 3), torch.randn(2, 3, 2, 3), tokens(4)
    whole = sequence(torch.cat([picture, reference], dim=2).flatten(1, 2), text)
    where = locate_tokens(whole, TokenLayout(patch=PATCH, beside="x_embedder"), LATENT, {"x_embedder": 15})
    assert where.grid == (3, 3) and torch.equal(where.tokens(whole), picture.flatten(1, 2))
    changed = whole.clone()
    where.add(changed, torch.ones(1, 9, 3))
    assert torch.equal(where.tokens(changed), where.tokens(whole) + 1)
    assert (changed != whole).sum() == 2 * 9 * 3


def test_videos() -> None:
    """Wan: tokens of 1 x 2 x 2 cells, a reference ahead only when its part has run."""
    video, latent = tokens(4 * 3 * 3), (2, 16, 4, 5, 6)
    layout = TokenLayout(patch=PATCH, begin=("ref_conv", ""))
    assert locate_tokens(video, layout, latent).grid == (4, 3, 3)
    whole = sequence(tokens(9), video, tokens(5))
    assert torch.equal(locate_tokens(whole, layout, latent, {"ref_conv": 9}).tokens(whole), video)


def test_what_does_not_fit_lies_in_one_row() -> None:
    for layout, latent in [
        (TokenLayout(patch=PATCH), (2, 4, 8, 8)),  # more tokens than there are
        (TokenLayout(patch=PATCH), (2, 4, 100)),  # sound
        (TokenLayout(patch=PATCH), None),
        (TokenLayout(patch=PATCH, exact=True), LATENT),  # one token too many
        (TokenLayout("text", PATCH, end=("all", "img_in")), LATENT),  # no text: the embedder did not run
    ]:
        assert locate_tokens(tokens(10), layout, latent) == TokenGrid((1, 10))
    assert locate_tokens(tokens(9), TokenLayout(patch=PATCH, exact=True), LATENT).grid == (3, 3)
    assert locate_tokens(tokens(10), TokenLayout(), LATENT, map_size=(2, 5)).grid == (2, 5)
    with pytest.raises(RevelioError, match="neither"):
        locate_tokens(torch.zeros(3, 4), TokenLayout())


def test_a_change_reaches_the_tokens_only() -> None:
    for activation, where in [
        (torch.randn(2, 3, 4, 5), TokenGrid((4, 5))),
        (torch.randn(2, 3, 2, 4, 5), TokenGrid((2, 4, 5))),
        (torch.randn(2, 4, 5, 3).permute(0, 3, 2, 1), TokenGrid((5, 4))),
        (torch.randn(2, 4, 3, 5, 2).permute(0, 2, 4, 1, 3), TokenGrid((2, 4, 5))),
        (torch.randn(2, 30, 3), TokenGrid((4, 5), 7, 5)),
    ]:
        change = torch.randn(2, where.tokens(activation).shape[1], 3)
        changed = activation.clone()
        where.add(changed, change)
        assert torch.allclose(where.tokens(changed), where.tokens(activation) + change)
        assert (changed != activation).sum() == change.numel()


def test_tokens_are_counted_in_whatever_a_module_puts_out() -> None:
    assert token_count(torch.zeros(2, 7, 3)) == 7
    assert token_count((torch.zeros(2, 7, 3), None)) == 7
    assert token_count(torch.zeros(2, 3, 4, 5)) == 20
    assert token_count(torch.zeros(2, 3, 2, 4, 5)) == 40
    assert token_count(None) == token_count(torch.zeros(3)) == 0
