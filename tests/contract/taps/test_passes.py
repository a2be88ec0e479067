"""Recording and steering in runs other than one plain pass: another size, inpainting, caches, windows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ..architectures import ARCHITECTURES
from ..oracle import mirror
from ..seen import sample as sample_bare

POINT = "middle_block.1"


@pytest.fixture
def record(pack: Callable[[str], Any]) -> Callable[..., Any]:
    return pack("comfy_revelio.host.record.features").record


def test_an_upscaled_second_pass_of_one_recorded_model(
    mini: SimpleNamespace, sae: Any, sample: Any, record: Any, prompts: Any
) -> None:
    """KSampler, LatentUpscale, KSampler at denoise 0.5: two runs, each with its own grid and steps."""
    import comfy.sample

    from nodes import LatentUpscale

    model, recorder = record(mini.model, sae())
    first = sample(model, size=(8, 12), steps=3)
    (larger,) = LatentUpscale().upscale({"samples": first}, "bilinear", 144, 96, "disabled")
    assert larger["samples"].shape[-2:] == (12, 18)
    noise = comfy.sample.prepare_noise(larger["samples"], 2)
    second = comfy.sample.sample(
        model, noise, 4, 3.0, "euler", "normal", prompts("hat"), prompts(""), larger["samples"], denoise=0.5,
        disable_pbar=True, seed=2,
    )  # fmt: skip
    for samples, grid, steps in ((first, (4, 6), 3), (second, (6, 9), 4)):
        trace = recorder.trace_of(samples)
        assert {frame.grid for frame in trace.frames} == {grid}
        assert [frame.step for frame in trace.steps(POINT)] == list(range(steps))
    assert recorder.trace_of(second).sigmas[0] < recorder.trace_of(first).sigmas[0] / 2


def inpaint(mini: SimpleNamespace, prompts: Any, model: Any, latent: Tensor, mask: Tensor) -> Tensor:
    """What a KSampler makes of a latent that went through SetLatentNoiseMask."""
    from nodes import SetLatentNoiseMask, common_ksampler

    (masked,) = SetLatentNoiseMask().set_mask({"samples": latent}, mask)
    (out,) = common_ksampler(
        model, 3, 4, 3.0, "euler", "normal", prompts("glasses"), prompts(""), masked, denoise=1.0
    )
    return out["samples"]


def test_inpainting(
    mini: SimpleNamespace, sae: Any, sample: Any, record: Any, prompts: Any, pack: Any
) -> None:
    """All steps are recorded; with the same mask, steering leaves everything outside of it as it was."""
    plain = sample(mini.model, size=(8, 12))
    mask = torch.zeros(1, 64, 96)
    mask[:, :, 48:] = 1.0
    handle = sae()
    model, recorder = record(mini.model, handle)
    painted = inpaint(mini, prompts, model, plain, mask)
    assert torch.equal(painted, inpaint(mini, prompts, mini.model, plain, mask))
    trace = recorder.trace_of(painted)
    assert [frame.step for frame in trace.steps(POINT)] == [0, 1, 2, 3]
    assert {frame.grid for frame in trace.frames} == {(4, 6)}

    steering = pack("comfy_revelio.steering")
    change = steering.Intervention(handle.dictionary, steering.Selection((1, 2)), 4.0, mode="add", mask=mask)
    steered = inpaint(
        mini, prompts, pack("comfy_revelio.host.steering").steer(model, change, handle), plain, mask
    )
    assert torch.allclose(steered[..., :6], plain[..., :6], atol=1e-4)
    assert not torch.allclose(steered[..., 6:], painted[..., 6:], atol=1e-2)


@pytest.mark.parametrize("name", ["EasyCacheNode", "LazyCacheNode"])
@pytest.mark.parametrize("recorder_first", [False, True])
def test_skipped_steps_are_gaps(
    mini: SimpleNamespace, sae: Any, sample: Any, record: Any, name: str, recorder_first: bool
) -> None:
    """A trace holds the steps that really ran, under their own numbers."""
    import comfy_extras.nodes_easycache

    def cached(model: Any) -> Any:
        node = getattr(comfy_extras.nodes_easycache, name)
        return node.execute(model, 3.0, 0.0, 0.9, False)[0]

    ran: list[None] = []
    hook = mini.model.model.diffusion_model.middle_block[1].register_forward_hook(
        lambda module, args, output: ran.append(None)
    )
    try:
        if recorder_first:
            model, recorder = record(mini.model, sae())
            samples = sample(cached(model), steps=8)
        else:
            model, recorder = record(cached(mini.model), sae())
            samples = sample(model, steps=8)
    finally:
        hook.remove()
    trace = recorder.trace_of(samples)
    for role in ("cond", "uncond"):
        frames = trace.steps(POINT, role)
        steps = [frame.step for frame in frames]
        assert 1 < len(steps) < 8 and len(steps) == len(ran)
        assert all(frame.sigma == pytest.approx(trace.sigmas[frame.step], rel=1e-4) for frame in frames)
        assert max(steps) > len(steps) - 1  # a gap, and what comes behind it is not moved up
    assert trace.total_steps == 8 and trace.feature_map(POINT, 1).shape[0] == len(steps)
    missing = min(set(range(8)) - set(steps))
    with pytest.raises(ValueError, match=f"Step {missing} was not recorded; recorded are 0, "):
        trace.feature_map(POINT, 1, step=missing)


def test_context_windows_of_a_video(built: Callable[[str], Any], pack: Any, record: Any) -> None:
    """Each window counts as an evaluation of its step; none is taken for another step."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    architecture, model = ARCHITECTURES["wan"], built("wan")
    # Inputs that older versions of ComfyUI do not have. The last inserts a frame before the windows.
    newer = {"freenoise": False, "causal_window_fix": False}
    known = inspect.signature(ContextWindowsManualNode.execute).parameters
    windowed = ContextWindowsManualNode.execute(
        model, 3, 1, "standard_static", 1, False, "pyramid", dim=2,
        **{name: value for name, value in newer.items() if name in known},
    )[0]  # fmt: skip
    handle = mirror(pack, pack("comfy_revelio.hookpoints").resolve(model.model.diffusion_model, "blocks.1"))
    recorded, recorder = record(windowed, handle)
    latent = torch.zeros(1, 16, 5, 8, 6)
    prompts = architecture.prompt(1), architecture.prompt(2)
    trace = recorder.trace_of(sample_bare(recorded, latent, *prompts, cfg=7.0, steps=2))
    for role in ("cond", "uncond"):
        found = [(frame.step, frame.evaluation) for frame in trace.frames if frame.role == role]
        assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {frame.grid for frame in trace.frames} == {(3, 4, 3)}


def test_two_places_and_two_saes_at_once(mini: SimpleNamespace, sae: Any, sample: Any, record: Any) -> None:
    """Recorders in a row do not affect each other, and together they make one trace of one run."""
    upper = sae("output_blocks.4.1", width=96)
    one, middle_recorder = record(mini.model, sae())
    both, upper_recorder = record(one, upper)
    samples = sample(both, steps=2)
    assert torch.equal(samples, sample(mini.model, steps=2))
    trace = middle_recorder.trace_of(samples).joined(upper_recorder.trace_of(samples))
    assert trace.hook_points == (POINT, "output_blocks.4.1")
    alone, recorder = record(mini.model, upper)
    expected = recorder.trace_of(sample(alone, steps=2))
    for mine, other in zip(
        trace.steps("output_blocks.4.1"), expected.steps("output_blocks.4.1"), strict=True
    ):
        assert torch.equal(mine.codes.values, other.codes.values)
