"""Interventions on tokens, against a transcription in float64, token by token."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Activation, Concept, Dictionary
from comfy_revelio.dictionary.concept import single_kind_reader
from comfy_revelio.steering import Intervention, Selection, TokenContext, apply, delta

GRID = (3, 5)
CHOSEN = Selection((4, 0, 17), (1.0, 0.5, -2.0))


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 15, 12, generator=torch.Generator().manual_seed(4))


def _context(**changes: Any) -> TokenContext:
    return TokenContext(**{"role": "cond", "grid": GRID, "percent": 0.5, **changes})


def _reference(tokens: Tensor, intervention: Intervention, mask: Tensor | None = None) -> Tensor:
    """h + dz @ W_dec in float64 with plain loops; maps and masks must already be of the grid's size."""
    sae, s = intervention.dictionary, intervention.strength
    out = tokens.double().clone()
    dense = sae.encode(tokens).dense().double()
    for b in range(tokens.shape[0]):
        for t in range(tokens.shape[1]):
            cell = (t // GRID[1], t % GRID[1])
            for f, w in zip(intervention.selection.features, intervention.selection.weights, strict=True):
                if intervention.mode == "scale" or (intervention.mode == "push" and s < 0):
                    dz = s * w * dense[b, t, f]
                else:
                    dz = s * w * sae.stats.mean_active[f].double()
                    if intervention.mode == "push" and intervention.place == "usual" and mask is None:
                        dz = dz * sae.stats.mean_map[f][cell].double()
                if mask is not None:
                    dz = dz * mask[b % len(mask)][cell].double()
                out[b, t] += dz * sae.W_dec[f].double()
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("place", ["usual", "everywhere"])
@pytest.mark.parametrize(("mode", "strength"), [("push", -1.0), ("push", -3.0), ("push", 2.0), ("add", 1.5),
                                               ("add", -1.5), ("scale", 2.0), ("scale", -1.0)])  # fmt: skip
def test_every_mode_matches_its_formula(make_dictionary, tokens, mode, strength, place, masked) -> None:
    mask = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(8)) if masked else None
    intervention = Intervention(make_dictionary(k=20), CHOSEN, strength, mode=mode, place=place, mask=mask)
    before = tokens.clone()
    result = apply(tokens, intervention, _context())
    assert torch.allclose(result.double(), _reference(tokens, intervention, mask), atol=1e-5)
    assert not torch.equal(result, tokens) and torch.equal(tokens, before)


def test_minus_one_switches_a_feature_off_and_keeps_the_error(make_dictionary, tokens) -> None:
    sae = make_dictionary(k=20)
    result = apply(tokens, Intervention(sae, Selection((4,)), -1.0), _context())
    codes = sae.encode(tokens)
    without = codes.dense()
    without[..., 4] = 0
    error = tokens - sae.decode(codes)
    assert torch.allclose(result, without @ sae.W_dec + sae.b_out + error, atol=1e-5)


def test_tokens_where_the_feature_is_silent_stay_bit_identical(make_dictionary, tokens) -> None:
    sae = make_dictionary(k=20)
    silent = sae.encode(tokens).of(4) == 0
    result = apply(tokens, Intervention(sae, Selection((4,)), -3.0), _context())
    assert 0 < int(silent.sum()) < silent.numel()
    assert torch.equal(result[silent], tokens[silent])
    assert bool((result[~silent] != tokens[~silent]).any(-1).all())


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.0},
        {"strength": -0.0},
        {"selection": Selection(())},
        {"selection": Selection((3, 4), (0.0, 0.0))},
        {"start_percent": 0.5, "end_percent": 0.5},
        {"start_percent": 1.0, "end_percent": 1.0},
        {"start_percent": 0.51},
        {"end_percent": 0.5},
        {"role": "uncond"},
    ],
)
@pytest.mark.parametrize("mode", ["push", "add", "scale"])
def test_what_does_not_apply_returns_the_same_object(make_dictionary, tokens, change, mode) -> None:
    options = {"selection": CHOSEN, "strength": 1.0, "mode": mode, **change}
    intervention = Intervention(make_dictionary(), **options)
    assert apply(tokens, intervention, _context()) is tokens
    assert delta(tokens, intervention, _context()) is None


@pytest.mark.parametrize(
    ("wanted", "role", "acts"),
    [("cond", "cond", True), ("cond", "cond2", True), ("cond", "uncond", False), ("uncond", "uncond", True),
     ("uncond", "cond", False), ("both", "cond", True), ("both", "uncond", True), ("both", "cond3", True)],
)  # fmt: skip
def test_roles(make_dictionary, tokens, wanted, role, acts) -> None:
    intervention = Intervention(make_dictionary(), CHOSEN, 1.0, role=wanted)
    assert (apply(tokens, intervention, _context(role=role)) is not tokens) == acts


def test_ranges_that_meet_cover_every_step_once(make_dictionary) -> None:
    ranges = [(0.0, 0.3), (0.3, 0.55), (0.55, 1.0)]
    parts = [Intervention(make_dictionary(), CHOSEN, 1.0, start_percent=a, end_percent=b) for a, b in ranges]
    for percent in (0.0, 0.1, 0.3, 0.5, 0.55, 0.99, 1.0):
        assert sum(part.applies("cond", percent) for part in parts) == 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("strength", [-4.0, 3.0])
def test_concepts_say_where_and_how_much(make_dictionary, tokens, concept, strength, masked) -> None:
    sae = make_dictionary(k=20, concepts={"glasses": concept}, stats=None)
    mask = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(8)) if masked else None
    selection = Selection((9,), (0.5,)) if strength < 0 else Selection(())
    selection = Selection(selection.features, selection.weights, concepts=((concept, 0.5), (concept, 2.0)))
    tokens = tokens + torch.tensor([2.0, -2.0])[:, None, None]  # the rows are of two kinds
    dense = sae.encode(tokens).dense().double()
    expected = tokens.double().clone()
    for b in range(2):
        for t in range(15):
            cell = (1 - b, slice(None), t // GRID[1], t % GRID[1])
            amount, share = concept.amount[cell].double(), concept.share[cell].double()
            due = dense[b, t, list(concept.features)] * share
            presence = float(due @ amount.clamp(min=0)) / max(
                1e-12, float(amount.clamp(min=0).square().sum())
            )
            presence = min(1.0, max(0.0, presence))
            dz = (1 - presence) * amount if strength > 0 else due + presence * amount.clamp(max=0)
            change = {f: 2.5 * c for f, c in zip(concept.features, dz, strict=True)}
            change |= {9: 0.5 * dense[b, t, 9]} if strength < 0 else {}
            factor = strength * (1 if mask is None else float(mask[b].flatten()[t]))
            expected[b, t] += sum(factor * c * sae.W_dec[f].double() for f, c in change.items())
    result = apply(tokens, Intervention(sae, selection, strength, mask=mask), _context())
    assert torch.allclose(result.double(), expected, atol=1e-5)


def test_what_is_there_already_is_not_added_again(make_dictionary, concept) -> None:
    """A token that has all of what the concept usually raises gets nothing more, at any strength."""
    eye, zero = torch.eye(12), torch.zeros(12)
    sae = Dictionary(eye, zero, eye, zero, zero, Activation("topk_relu", 12))
    amount = torch.zeros(1, 2, 1, 2)
    amount[0, :, 0, 0] = torch.tensor([3.0, -1.0])
    glasses = Concept((4, 7), amount, torch.ones_like(amount), single_kind_reader(12))
    x = torch.zeros(3, 2, 12)
    x[1, 0, 4], x[2, 0, 4] = 3.0, 1.5  # none, all and half of it
    intervention = Intervention(sae, Selection((), concepts=((glasses, 1.0),)), 2.0)
    change = delta(x, intervention, TokenContext(grid=(1, 2)))
    assert torch.allclose(change[:, 0, 4], torch.tensor([6.0, 0.0, 3.0]))
    assert torch.allclose(change[:, 0, 7], torch.tensor([-2.0, 0.0, -1.0]))
    assert float(change[:, 1].abs().max()) == 0.0


def test_concepts_follow_the_grid_and_want_their_place(make_dictionary, concept) -> None:
    sae = make_dictionary(stats=None)
    sae.b_enc.fill_(-100.0)  # nothing fires, so nothing of the concept is there yet
    selection = Selection((), concepts=((concept, 1.0),))
    silent = sae.b_in.expand(1, 60, 12) - 0.5  # of kind 0
    larger = delta(silent, Intervention(sae, selection, 1.0), TokenContext(grid=(6, 10)))
    maps = torch.nn.functional.interpolate(concept.amount[:1], size=(6, 10), mode="bilinear")
    expected = maps[0].flatten(1).T @ sae.W_dec[list(concept.features)]
    assert torch.allclose(larger[0], expected, atol=1e-5)
    nothing = Selection((), concepts=((concept, 0.0),))
    assert not Intervention(sae, nothing, 1.0).active
    for wrong in ({"mode": "add"}, {"mode": "scale"}, {"place": "everywhere"}):
        with pytest.raises(RevelioError, match='mode push, "where to add" usual'):
            Intervention(sae, selection, 1.0, **wrong)


def test_the_maps_of_a_concept_go_with_the_intervention(make_dictionary, concept) -> None:
    """They are large and may be on the GPU; only those of the last image sizes are kept."""

    def kept() -> set[torch.Size]:
        gc.collect()
        sizes = {(2, height * 11, 3) for height in (7, 8, 9)}  # of nothing else here
        return {t.shape for t in gc.get_objects() if type(t) is Tensor and tuple(t.shape) in sizes}

    intervention = Intervention(make_dictionary(), Selection((), concepts=((concept, 1.0),)), 1.0)
    for height in (7, 8, 9):
        delta(torch.zeros(1, height * 11, 12), intervention, TokenContext(grid=(height, 11)))
    assert kept() == {(2, 88, 3), (2, 99, 3)}
    del intervention
    assert kept() == set()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_half_precision_out(make_dictionary, tokens, dtype) -> None:
    half = tokens.to(dtype)
    for strength in (-2.0, 2.0):
        intervention = Intervention(make_dictionary(k=20), CHOSEN, strength)
        result = apply(half, intervention, _context())
        change = delta(half, intervention, _context())
        assert result.dtype == dtype and change.dtype == torch.float32
        assert torch.equal(result, half + change.to(dtype))


def test_place_and_mask_are_resized_to_the_grid(make_dictionary) -> None:
    sae = make_dictionary(maps=(4, 4))
    sae.stats_mean_map[4] = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(4, 4)
    x = torch.zeros(1, 6 * 10, 12)
    context = TokenContext(grid=(6, 10))
    usual = delta(x, Intervention(sae, Selection((4,)), 1.0), context).norm(dim=-1).reshape(6, 10)
    full = float(sae.stats.mean_active[4])
    assert torch.allclose(usual[:, :3], torch.full((6, 3), full), atol=1e-5)
    assert float(usual[:, 7:].abs().max()) < 1e-6 and bool((usual[:, 4] > usual[:, 5]).all())

    mask = torch.zeros(1, 12, 40)
    mask[:, :6, 2:] = 1.0  # in the grid: the upper three rows; half of the first column
    masked = delta(x, Intervention(sae, Selection((4,)), 1.0, mask=mask), context).norm(dim=-1).reshape(6, 10)
    expected = torch.zeros(6, 10)
    expected[:3] = full
    expected[:3, 0] = full / 2
    assert torch.allclose(masked, expected, atol=1e-5)


def test_masks_follow_their_batch_items(make_dictionary, tokens) -> None:
    masks = torch.zeros(3, *GRID)
    masks[1] = 1.0  # only item 1 of 3 is to change
    intervention = Intervention(make_dictionary(), CHOSEN, 1.0, mask=masks)
    for items, changed in (((1, 2), [True, False]), (slice(0, 2), [False, True]), ((4, 3), [True, False])):
        result = apply(tokens, intervention, _context(items=items))
        assert [not torch.equal(a, b) for a, b in zip(result, tokens, strict=True)] == changed
    with pytest.raises(RevelioError, match="2 rows"):
        apply(tokens, intervention, _context(items=(0,)))
    one = Intervention(make_dictionary(), CHOSEN, 1.0, mask=torch.ones(GRID))
    assert bool((apply(tokens, one, _context()) != tokens).any(-1).all())


def test_a_black_mask_changes_nothing(make_dictionary, tokens) -> None:
    for strength in (-1.0, 1.0):
        intervention = Intervention(make_dictionary(), CHOSEN, strength, mask=torch.zeros(1, 64, 64))
        assert torch.equal(apply(tokens, intervention, _context()), tokens)


def test_usual_without_maps_is_everywhere(make_dictionary, tokens) -> None:
    usual, everywhere = (
        apply(tokens, Intervention(make_dictionary(maps=None), CHOSEN, 1.0, place=place), _context())
        for place in ("usual", "everywhere")
    )
    assert torch.equal(usual, everywhere)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"strength": math.nan}, "finite"),
        ({"strength": math.inf}, "finite"),
        ({"selection": Selection((40,))}, "0 to 39"),
        ({"selection": Selection((-1,))}, "0 to 39"),
        ({"mode": "pull"}, "push, add, scale"),
        ({"place": "left"}, "usual, everywhere"),
        ({"role": "neither"}, "cond, uncond, both"),
        ({"start_percent": -0.1}, "percent"),
        ({"end_percent": 1.1}, "percent"),
        ({"start_percent": 0.6, "end_percent": 0.4}, "percent"),
        ({"start_percent": math.nan}, "percent"),
        ({"mask": torch.zeros(4)}, "mask"),
        ({"mask": torch.zeros(1, 0, 4)}, "mask"),
        ({"mask": torch.zeros(1, 4, 4, 3)}, "mask"),
        ({"mask": torch.full((1, 4, 4), math.nan)}, "0 to 1"),
    ],
)
def test_invalid_settings_are_refused_at_once(make_dictionary, options, word) -> None:
    with pytest.raises(RevelioError, match=word):
        Intervention(make_dictionary(), **{"selection": CHOSEN, "strength": 1.0, **options})


def test_statistics_are_required_only_when_needed(make_dictionary, tokens) -> None:
    bare = make_dictionary(stats=None)
    for mode, strength in (("push", 1.0), ("add", -1.0)):
        with pytest.raises(RevelioError, match="mean activations"):
            Intervention(bare, CHOSEN, strength, mode=mode)
    assert apply(tokens, Intervention(bare, CHOSEN, -1.0), _context()) is not tokens
    assert apply(tokens, Intervention(bare, CHOSEN, 0.0, mode="add"), _context()) is tokens


def test_tokens_that_do_not_fit_are_named(make_dictionary) -> None:
    for strength in (-1.0, 1.0):
        intervention = Intervention(make_dictionary(), CHOSEN, strength)
        with pytest.raises(RevelioError, match=r"12 wide.*16 wide"):
            apply(torch.zeros(2, 15, 16), intervention, _context())
        with pytest.raises(RevelioError, match="grid of 3 by 5"):
            apply(torch.zeros(2, 16, 12), intervention, _context())


def test_a_mask_that_overshoots_counts_as_white(make_dictionary) -> None:
    sae = make_dictionary()
    tokens, context = torch.randn(1, 12, sae.d_model), TokenContext(grid=(3, 4))
    over, white = (
        delta(tokens, Intervention(sae, Selection((4,)), 1.0, mask=torch.full((1, 6, 8), value)), context)
        for value in (1.1, 1.0)
    )
    assert over is not None and white is not None
    assert torch.equal(over, white)


def _one_by_one(tokens: Tensor, intervention: Intervention) -> Tensor:
    """The modes that read and those that bring, in float64 with plain loops."""
    sae, s = intervention.dictionary, intervention.strength
    out = tokens.double().clone()
    dense = sae.encode(tokens).dense().double()
    for b in range(len(tokens)):
        length = tokens[b].double().norm(dim=-1).mean()
        for t in range(tokens.shape[1]):
            for f, w in zip(intervention.selection.features, intervention.selection.weights, strict=True):
                one = {
                    "mean": sae.stats.mean_active[f].double(),
                    "code": 1.0,
                    "norm": length / sae.W_dec[f].double().norm(),
                }[intervention.unit]
                z = float(dense[b, t, f])
                wanted = {
                    "add": z + s * w * one,
                    "set": s * w * one,
                    "clamp": min(max(z, -s * abs(w) * one), s * abs(w) * one),
                    "ablate": z - abs(s) * w * z,
                    "scale": z + s * w * z,
                }[intervention.mode]
                out[b, t] += (float(wanted) - z) * sae.W_dec[f].double()
    return out


@pytest.mark.parametrize("unit", ["mean", "code", "norm"])
@pytest.mark.parametrize(
    ("mode", "strength"),
    [
        ("add", -1.5),
        ("set", 0.7),
        ("set", -2.0),
        ("clamp", 0.3),
        ("ablate", 1.0),
        ("ablate", -0.5),
        ("scale", 2.0),
    ],
)
def test_modes_in_every_unit(make_dictionary, tokens, mode, strength, unit) -> None:
    intervention = Intervention(make_dictionary(k=20), CHOSEN, strength, mode=mode, unit=unit)
    result = apply(tokens, intervention, _context())
    assert torch.allclose(result.double(), _one_by_one(tokens, intervention), atol=1e-5)
    assert not torch.equal(result, tokens)


def test_push_in_other_units_keeps_its_place(make_dictionary, tokens) -> None:
    sae = make_dictionary()
    pushed, everywhere = (
        delta(tokens, Intervention(sae, Selection((4,)), 2.0, unit="norm", place=place), _context())
        for place in ("usual", "everywhere")
    )
    assert pushed is not None and everywhere is not None
    assert torch.allclose(pushed, everywhere * sae.stats_mean_map[4].flatten()[:, None], atol=1e-5)
    length = tokens.norm(dim=-1).mean(-1)
    assert torch.allclose(everywhere.norm(dim=-1), 2 * length[:, None].expand(2, 15), atol=1e-4)


def test_only_these_features_are_left_and_the_error_stays(make_dictionary, tokens) -> None:
    sae = make_dictionary(k=20)
    codes = sae.encode(tokens)
    kept = torch.zeros(40)
    kept[[4, 0]] = torch.tensor([1.0, 0.5])
    error = tokens - sae.decode(codes)
    selection = Selection((4, 0, 9), (1.0, 0.5, 0.0))
    result = apply(tokens, Intervention(sae, selection, 1.0, mode="only"), _context())
    assert torch.allclose(result, (codes.dense() * kept) @ sae.W_dec + sae.b_out + error, atol=1e-5)
    half = apply(tokens, Intervention(sae, selection, -0.5, mode="only"), _context())
    assert torch.allclose(half, (tokens + result) / 2, atol=1e-5)


@pytest.mark.parametrize("normalise", ["layernorm", "rms"])
def test_only_with_dictionaries_that_normalise(make_dictionary, tokens, normalise) -> None:
    sae = make_dictionary(k=20, normalise=normalise)
    codes = sae.encode(tokens)
    everything = tuple(range(40))
    same = delta(tokens, Intervention(sae, Selection(everything), 1.0, mode="only"), _context())
    assert same is not None and torch.allclose(same, torch.zeros_like(same), atol=1e-5)
    without = delta(tokens, Intervention(sae, Selection((39,)), 1.0, mode="only"), _context())
    expected = sae.contribution(-codes.dense()[..., :39], list(range(39)), tokens)
    assert torch.allclose(without, expected, atol=1e-4)


def test_replacing_a_blocks_contribution(make_dictionary, tokens) -> None:
    """Of a difference the features are all that is left; of an output the bias stays too."""
    for captured in ("diff", "output"):
        sae = make_dictionary(captured=captured)
        result = apply(tokens, Intervention(sae, Selection((4,)), 2.0, mode="replace"), _context())
        expected = 2.0 * sae.stats.mean_active[4] * sae.W_dec[4] + (captured == "output") * sae.b_out
        assert torch.allclose(result, expected.expand_as(tokens), atol=1e-5)


def test_a_masked_replacement_leaves_the_rest(make_dictionary, tokens) -> None:
    mask = torch.zeros(*GRID)
    mask[1] = 1.0
    for mode in ("replace", "ablate_block", "only"):
        intervention = Intervention(make_dictionary(captured="diff"), CHOSEN, 1.0, mode=mode, mask=mask)
        changed = (apply(tokens, intervention, _context()) != tokens).any(-1).any(0).reshape(GRID)
        assert changed.tolist() == [[False] * 5, [True] * 5, [False] * 5]


def test_a_block_can_be_removed(make_dictionary, tokens) -> None:
    sae = make_dictionary(captured="diff")
    off = Intervention(sae, Selection(()), 1.0, mode="ablate_block")
    assert off.active
    assert torch.equal(apply(tokens, off, _context()), torch.zeros_like(tokens))
    half = Intervention(sae, Selection(()), 0.5, mode="ablate_block")
    assert torch.allclose(apply(tokens, half, _context()), tokens / 2)


def test_mirrored_turns_the_sign_for_the_negative_half(make_dictionary, tokens) -> None:
    sae = make_dictionary(k=20, captured="diff")
    for mode, strength in (("add", 2.0), ("push", -1.0), ("set", 1.0), ("clamp", 0.1), ("only", 1.0)):
        intervention = Intervention(sae, CHOSEN, strength, mode=mode, role="mirrored")
        plus, minus = (delta(tokens, intervention, _context(role=role)) for role in ("cond2", "uncond"))
        assert plus is not None and minus is not None
        assert torch.equal(plus, -minus)
    for mode in ("replace", "ablate_block"):
        intervention = Intervention(sae, CHOSEN, 1.0, mode=mode, role="mirrored")
        assert torch.equal(apply(tokens, intervention, _context(role="uncond")), torch.zeros_like(tokens))


@pytest.mark.parametrize(
    ("ramp", "shares"),
    [
        ("none", [1, 1, 1, 1, 0]),
        ("fade in", [0, 0.25, 0.5, 0.75, 0]),
        ("fade out", [1, 0.75, 0.5, 0.25, 0]),
        ("fade in and out", [0, 0.5, 1, 0.5, 0]),
    ],
)
def test_ramps(make_dictionary, tokens, ramp, shares) -> None:
    sae = make_dictionary(k=20)
    steady = delta(tokens, Intervention(sae, CHOSEN, 2.0, mode="set"), _context())
    ramped = Intervention(sae, CHOSEN, 2.0, mode="set", start_percent=0.2, end_percent=0.6, ramp=ramp)
    assert steady is not None
    for percent, share in zip((0.2, 0.3, 0.4, 0.5, 0.6), shares, strict=True):
        change = delta(tokens, ramped, _context(percent=percent))
        assert (change is None) == (share == 0)
        assert change is None or torch.allclose(change, share * steady, atol=1e-5)


def test_a_ramp_to_the_very_end(make_dictionary) -> None:
    intervention = Intervention(make_dictionary(), CHOSEN, 1.0, ramp="fade in")
    assert intervention.factor("cond", 1.0) == 1.0
    assert intervention.factor("uncond", 1.0) == 0.0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mode": "clamp", "strength": -1.0}, "above 0"),
        ({"mode": "ablate_block"}, "captured = diff"),
        ({"unit": "metres"}, "mean, code, norm"),
        ({"ramp": "up"}, "fade in"),
    ],
)
def test_modes_and_settings_that_contradict_each_other(make_dictionary, options, word) -> None:
    with pytest.raises(RevelioError, match=word):
        Intervention(make_dictionary(), **{"selection": CHOSEN, "strength": 1.0, **options})
    with pytest.raises(RevelioError, match="scales every activation"):
        Intervention(make_dictionary(normalise="rms"), CHOSEN, 1.0, unit="norm")


def test_units_that_need_no_statistics(make_dictionary, tokens) -> None:
    bare = make_dictionary(stats=None, captured="diff")
    for mode in ("add", "set", "replace", "push"):
        with pytest.raises(RevelioError, match="unit code"):
            Intervention(bare, CHOSEN, 1.0, mode=mode)
        for unit in ("code", "norm"):
            assert (
                apply(tokens, Intervention(bare, CHOSEN, 1.0, mode=mode, unit=unit), _context()) is not tokens
            )
