"""Steering in real sampling runs: what changes, what must not, and when and where."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

POINT = "middle_block.1"


@pytest.fixture
def steer(pack: Callable[[str], Any], sae: Any) -> Callable[..., Any]:
    """steer(model, features, strength, **options of the intervention) -> steered clone."""
    steering = pack("comfy_revelio.steering")
    host = pack("comfy_revelio.host.steering")

    def make(
        model: Any,
        features: tuple[int, ...] = (0, 1, 2, 3),
        strength: float = 3.0,
        *,
        handle: Any = None,
        **options: Any,
    ) -> Any:
        handle = handle or sae()
        intervention = steering.Intervention(
            handle.dictionary, steering.Selection(features), strength, **options
        )
        return host.steer(model, intervention, handle)

    return make


@pytest.mark.parametrize(
    "nothing",
    [
        {"strength": 0.0},
        {"features": ()},
        {"start_percent": 0.4, "end_percent": 0.4},
        {"mask": torch.zeros(16, 16)},
        {"role": "uncond", "cfg": 1.0},
    ],
    ids=["strength 0", "no features", "empty range", "black mask", "role that does not run"],
)
def test_nothing_to_do_is_bit_identical(
    mini: SimpleNamespace, sample: Any, steer: Any, nothing: dict[str, Any]
) -> None:
    cfg = nothing.pop("cfg", 3.0)
    assert torch.equal(sample(steer(mini.model, **nothing), cfg=cfg), sample(mini.model, cfg=cfg))


def test_a_steered_branch_beside_changes_nothing(mini: SimpleNamespace, sample: Any, steer: Any) -> None:
    alone = sample(mini.model)
    other_clone = mini.model.clone()
    steered = steer(mini.model)
    changed = sample(steered)
    assert not torch.equal(changed, alone)
    assert torch.equal(sample(mini.model), alone)
    assert torch.equal(sample(other_clone), alone)
    assert torch.equal(sample(steered), changed)
    assert torch.equal(sample(steered.clone()), changed)


def test_the_change_is_what_the_formula_says(
    mini: SimpleNamespace, sample: Any, steer: Any, sae: Any
) -> None:
    """At the hook point: + strength * mean_active * W_dec, in the positive half only."""
    handle = sae()
    seen: list[Tensor] = []
    following = mini.model.model.diffusion_model.middle_block[2]
    for model in (mini.model, steer(mini.model, (4,), 1.5, handle=handle)):
        hook = following.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        try:
            sample(model, steps=1, size=(8, 12))
        finally:
            hook.remove()
    plain, steered = seen
    assert torch.equal(steered[0], plain[0])  # the negative prompt's row
    expected = plain[1] + 1.5 * 2.0 * handle.dictionary.W_dec[4][:, None, None]
    assert torch.allclose(steered[1], expected, atol=1e-4)


def test_roles(mini: SimpleNamespace, sample: Any, steer: Any) -> None:
    results = [sample(steer(mini.model, role=role)) for role in ("cond", "uncond", "both")]
    plain = sample(mini.model)
    for number, result in enumerate(results):
        assert not torch.equal(result, plain)
        assert all(not torch.equal(result, other) for other in results[:number])


def test_every_positive_prompt_is_steered(
    mini: SimpleNamespace, sample: Any, steer: Any, pack: Any, prompts: Any, sae: Any
) -> None:
    seen: list[Tensor] = []
    following = mini.model.model.diffusion_model.middle_block[2]
    positive = [*prompts("glasses"), *prompts("beard")]
    for model in (mini.model, steer(mini.model)):
        hook = following.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        try:
            sample(model, steps=1, positive=positive)
        finally:
            hook.remove()
    changed = (seen[0] != seen[1]).flatten(1).any(1).tolist()
    assert changed == [False, True, True]


def test_start_and_end_percent(mini: SimpleNamespace, sample: Any, steer: Any, pack: Any, sae: Any) -> None:
    """Four steps at 0, 1/3, 2/3 and 1 of the schedule; steered where the range says."""
    for (start, end), expected in {
        (0.0, 1.0): [True, True, True, True],
        (0.0, 0.5): [True, True, False, False],
        (0.5, 1.0): [False, False, True, True],
        (0.3, 0.6): [False, True, False, False],
    }.items():
        assert steps_steered(mini, sample, steer, start_percent=start, end_percent=end) == expected


def test_a_mask_is_fitted_to_the_grid(mini: SimpleNamespace, sample: Any, steer: Any) -> None:
    mask = torch.zeros(50, 70)
    mask[:, 35:] = 1.0  # right half, at a size that fits nothing
    changed = tokens_changed(mini, sample, steer, mask=mask, size=(8, 12))
    assert changed.shape == (4, 6)
    assert not changed[:, :3].any()
    assert changed[:, 3:].all()


def test_a_mask_for_each_item(mini: SimpleNamespace, sample: Any, steer: Any) -> None:
    seen: list[Tensor] = []
    following = mini.model.model.diffusion_model.middle_block[2]
    masks = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)])
    for model in (mini.model, steer(mini.model, mask=masks)):
        hook = following.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        try:
            sample(model, steps=1, batch=2)
        finally:
            hook.remove()
    changed = (seen[0] != seen[1]).flatten(1).any(1).tolist()
    assert changed == [False, False, False, True]


def test_the_difference_is_steered_by_adding_to_the_output(
    mini: SimpleNamespace, sample: Any, steer: Any, sae: Any
) -> None:
    handle = sae(captured="diff")
    assert tokens_changed(mini, sample, steer, handle=handle).all()
    silent = steer(mini.model, (1,), -1.0, handle=handle)
    assert sample(silent).isfinite().all()


def test_the_change_of_a_difference_is_rounded_once(
    pack: Any, sae: Any, sample: Any, steer: Any, mini: SimpleNamespace
) -> None:
    """In bfloat16 the output gets exactly the change, not a difference that was rounded on the way."""
    handle = sae(captured="diff")
    model, _, _ = pack("comfy_revelio.host.mini.model").build_untrained()
    model.model.to(torch.bfloat16)
    model.model.manual_cast_dtype = torch.bfloat16
    model.model.diffusion_model.dtype = torch.bfloat16
    inside, following = (model.model.diffusion_model.middle_block[number] for number in (1, 2))
    outputs: list[Tensor] = []
    inputs: list[Tensor] = []
    hooks = [
        inside.register_forward_hook(lambda module, args, output: outputs.append(output.clone())),
        following.register_forward_pre_hook(lambda module, args: inputs.append(args[0].clone())),
    ]
    try:
        sample(steer(model, (4,), 1.5, handle=handle), steps=1)
    finally:
        for hook in hooks:
            hook.remove()
    assert outputs[0].dtype == torch.bfloat16
    change = (1.5 * 2.0 * handle.dictionary.W_dec[4]).bfloat16()[:, None, None]
    assert torch.equal(inputs[0][1], outputs[0][1] + change)
    assert torch.equal(inputs[0][0], outputs[0][0])


def test_a_difference_needs_equal_shapes(mini: SimpleNamespace, sample: Any, steer: Any, sae: Any) -> None:
    handle = sae("input_blocks.4.0", captured="diff")  # a residual block that widens
    with pytest.raises(ValueError, match=r"output minus input.*input_blocks\.4\.0"):
        sample(steer(mini.model, handle=handle), steps=1)


def test_ablation_touches_only_tokens_where_the_feature_fires(
    mini: SimpleNamespace, sample: Any, steer: Any, sae: Any, pack: Any
) -> None:
    handle = sae()
    model, recorder = pack("comfy_revelio.host.record.features").record(mini.model, handle)
    trace = recorder.trace_of(sample(model, steps=1))
    feature = next(
        score.feature
        for score in trace.top_features(POINT, 40, by="distinct", role="cond")
        if 0 < score.share < 1
    )
    fires = trace.feature_map(POINT, feature, step=0) > 0
    changed = tokens_changed(mini, sample, steer, features=(feature,), strength=-1.0, handle=handle)
    assert torch.equal(changed, fires)


def test_record_and_steer_see_each_other_in_graph_order(
    mini: SimpleNamespace, sample: Any, steer: Any, sae: Any, pack: Any
) -> None:
    record = pack("comfy_revelio.host.record.features").record
    handle = sae()
    before, recorder_before = record(mini.model, handle)
    steered = steer(before, (4,), 5.0, handle=handle)
    after, recorder_after = record(steered, handle)
    samples = sample(after, steps=1)
    codes = [
        recorder.trace_of(samples).steps(POINT)[0].codes.of(4)
        for recorder in (recorder_before, recorder_after)
    ]
    assert (codes[1] - codes[0]).min() > 4.0


def test_interventions_add_up(mini: SimpleNamespace, sample: Any, steer: Any) -> None:
    together = sample(steer(mini.model, (1, 2), 1.0), steps=1)
    one_by_one = sample(steer(steer(mini.model, (1,), 1.0), (2,), 1.0), steps=1)
    assert torch.allclose(together, one_by_one, atol=1e-4)


def test_the_sae_is_loaded_once_with_the_model(mini: SimpleNamespace, steer: Any, sae: Any) -> None:
    handle = sae()
    twice = steer(steer(mini.model, (1,), handle=handle), (2,), handle=handle)
    carried = twice.clone().get_nested_additional_models()
    assert [patcher.model for patcher in carried] == [handle.dictionary]
    assert not mini.model.get_nested_additional_models()


def test_half_precision(pack: Any, sae: Any, prompts: Any, sample: Any, steer: Any) -> None:
    """A model that computes in bfloat16: the change is cast, and strength 0 stays exact."""
    model, _, _ = pack("comfy_revelio.host.mini.model").build_untrained()
    model.model.to(torch.bfloat16)
    model.model.manual_cast_dtype = torch.bfloat16
    model.model.diffusion_model.dtype = torch.bfloat16
    plain = sample(model, steps=2)
    assert torch.equal(sample(steer(model, strength=0.0), steps=2), plain)
    assert not torch.equal(sample(steer(model), steps=2), plain)


def steps_steered(mini: SimpleNamespace, sample: Any, steer: Any, **options: Any) -> list[bool]:
    """Which steps of four are steered, from the network's own activations on equal inputs."""
    return [size > 0 for size in sizes_of_change(mini, sample, steer, **options)]


def sizes_of_change(mini: SimpleNamespace, sample: Any, steer: Any, **options: Any) -> list[float]:
    """How far steering moves the activations at each of four steps."""
    seen: list[list[Tensor]] = [[], []]
    inside, following = (mini.model.model.diffusion_model.middle_block[number] for number in (1, 2))
    outputs: list[Tensor] = []
    hooks = [
        inside.register_forward_hook(lambda module, args, output: outputs.append(output.clone())),
        following.register_forward_pre_hook(lambda module, args: seen[1].append(args[0].clone())),
    ]
    try:
        sample(steer(mini.model, **options))
    finally:
        for hook in hooks:
            hook.remove()
    return [float((after - before).norm()) for before, after in zip(outputs, seen[1], strict=True)]


def tokens_changed(
    mini: SimpleNamespace, sample: Any, steer: Any, size: tuple[int, int] = (8, 8), **options: Any
) -> Tensor:
    """Which tokens of the positive prompt's row change in the first step: bool [H, W]."""
    seen: list[Tensor] = []
    following = mini.model.model.diffusion_model.middle_block[2]
    for model in (mini.model, steer(mini.model, **options)):
        hook = following.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        try:
            sample(model, steps=1, size=size)
        finally:
            hook.remove()
    assert torch.equal(seen[0][0], seen[1][0])
    return (seen[0][1] != seen[1][1]).any(0)


def test_mirrored_is_the_opposite_in_the_negative_half(
    mini: SimpleNamespace, sample: Any, steer: Any, sae: Any
) -> None:
    handle = sae()
    plain, steered = behind(mini, sample, steer(mini.model, (4,), 1.5, handle=handle, role="mirrored"))
    change = 1.5 * 2.0 * handle.dictionary.W_dec[4][:, None, None]
    for row, sign in ((0, -1.0), (1, 1.0)):  # uncond, cond
        assert torch.allclose(steered[row], plain[row] + sign * change, atol=1e-4)


def test_replacing_is_the_feature_icon(mini: SimpleNamespace, sample: Any, steer: Any, sae: Any) -> None:
    """The block outputs the features alone on the positive side, and nothing on the negative one."""
    handle = sae(captured="diff")
    inputs: list[Tensor] = []
    block = mini.model.model.diffusion_model.middle_block[1]
    hook = block.register_forward_pre_hook(lambda module, args: inputs.append(args[0].clone()))
    try:
        icon = steer(mini.model, (4,), 3.0, handle=handle, mode="replace", role="mirrored")
        _, steered = behind(mini, sample, icon)
    finally:
        hook.remove()
    uncond, cond = inputs[-1]
    assert torch.allclose(steered[0], uncond, atol=1e-4)
    assert torch.allclose(steered[1], cond + 6.0 * handle.dictionary.W_dec[4][:, None, None], atol=1e-4)


@pytest.mark.parametrize(
    ("ramp", "shares"), [("fade in", (0, 1 / 3, 2 / 3, 1)), ("fade out", (1, 2 / 3, 1 / 3, 0))]
)
def test_a_ramp_follows_the_schedule(
    mini: SimpleNamespace, sample: Any, steer: Any, ramp: str, shares: tuple[float, ...]
) -> None:
    """Four steps at 0, 1/3, 2/3 and 1 of the schedule."""
    sizes = sizes_of_change(mini, sample, steer, ramp=ramp, mode="add")
    (full,) = set(sizes_of_change(mini, sample, steer, mode="add", end_percent=0.1)) - {0.0}
    assert sizes == pytest.approx([full * share for share in shares], abs=0.01 * full)


def test_steering_nodes_in_any_order(mini: SimpleNamespace, sample: Any, steer: Any, sae: Any) -> None:
    """At two hook points and twice at one: additions commute."""
    upper = sae("output_blocks.4.1", width=96)
    middle = sae()

    def chain(*order: int) -> Tensor:
        model = mini.model
        for number in order:
            handle = upper if number == 2 else middle
            model = steer(model, (number,), 2.0 + number, handle=handle)
        return sample(model, steps=2)

    assert torch.allclose(chain(0, 1, 2), chain(2, 1, 0), atol=1e-4)
    assert not torch.allclose(chain(0, 1, 2), chain(0, 1), atol=1e-4)


def behind(mini: SimpleNamespace, sample: Any, model: Any, **options: Any) -> list[Tensor]:
    """The input of the module after the middle block in one step, unsteered and from `model`."""
    seen: list[Tensor] = []
    following = mini.model.model.diffusion_model.middle_block[2]
    for each in (mini.model, model):
        hook = following.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        try:
            sample(each, steps=1, size=(8, 12), **options)
        finally:
            hook.remove()
    return seen
