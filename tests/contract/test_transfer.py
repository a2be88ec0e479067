"""Transfer between two real generations of the network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

SIZE = (8, 12)  # a grid of 4 by 6 at the middle block


@pytest.fixture
def scene(mini: SimpleNamespace, pack: Any, sae: Any, sample: Any, prompts: Any) -> SimpleNamespace:
    """Two recorded generations, and the mask of the left half."""
    handle = sae()
    record = pack("comfy_revelio.host.record.features").record

    def trace(text: str) -> Any:
        model, recorder = record(mini.model, handle)
        return recorder.trace_of(sample(model, positive=prompts(text), size=SIZE, batch=2))

    mask = torch.zeros(1, 64, 96)
    mask[:, :, :48] = 1.0
    return SimpleNamespace(sae=handle, source=trace("glasses"), target=trace("a hat"), mask=mask)


@pytest.fixture
def transfer(mini: SimpleNamespace, pack: Any, scene: SimpleNamespace) -> Any:
    host = pack("comfy_revelio.host.transfer")

    def make(model: Any = None, **options: Any) -> Any:
        return host.transfer_features(
            model or mini.model,
            scene.sae,
            host.Side(scene.source, scene.mask, 1),
            host.Side(scene.target, None),
            **options,
        )[0]

    return make


def entering(mini: SimpleNamespace, sample: Any, prompts: Any, model: Any) -> Tensor:
    """The input of the module after the middle block in the first step: [uncond 2, cond 2, C, H, W]."""
    seen: list[Tensor] = []
    following = mini.model.model.diffusion_model.middle_block[2]
    hook = following.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    try:
        sample(model, positive=prompts("a hat"), size=SIZE, batch=2)
    finally:
        hook.remove()
    return seen[0]


@pytest.mark.parametrize("method", ["adaptive", "plain"])
def test_the_masked_half_of_the_positive_side_changes(
    mini: SimpleNamespace, sample: Any, prompts: Any, transfer: Any, method: str
) -> None:
    plain, changed = (
        entering(mini, sample, prompts, model) for model in (mini.model, transfer(method=method))
    )
    assert torch.equal(changed[:2], plain[:2])
    where = (changed[2:] != plain[2:]).any(1)
    assert where[:, :, :3].all()
    assert not where[:, :, 3:].any()


def test_all_features_at_full_strength_rebuild_the_source(
    mini: SimpleNamespace, sample: Any, prompts: Any, pack: Any, scene: SimpleNamespace
) -> None:
    """With all features that fire added and removed, plain, the code of each masked cell is the source's."""
    host = pack("comfy_revelio.host.transfer")
    model, _ = host.transfer_features(
        mini.model,
        scene.sae,
        host.Side(scene.source, scene.mask, 1),
        host.Side(scene.target, None),
        method="plain",
        count=48,
    )
    sae = scene.sae.dictionary
    plain, changed = (entering(mini, sample, prompts, each)[2] for each in (mini.model, model))
    frames = [trace.steps("middle_block.1")[0].codes for trace in (scene.source, scene.target)]
    dense = [codes.dense()[item] for codes, item in zip(frames, (1, 0), strict=True)]
    mean = [d.reshape(4, 6, -1)[:, :3].flatten(0, 1).mean(0) for d in dense]
    order = (mean[0] / mean[0].sum() - mean[1] / mean[1].sum()).argsort(descending=True, stable=True)
    plus, minus = order[:48], order[48:]
    wanted = dense[0][:, plus] @ sae.W_dec[plus] - dense[1][:, minus] @ sae.W_dec[minus]
    change = (changed - plain).flatten(1).T.reshape(4, 6, -1)
    assert torch.allclose(change[:, :3], wanted.reshape(4, 6, -1)[:, :3], atol=1e-3)


def test_strength_0_and_an_empty_range_change_nothing(
    mini: SimpleNamespace, sample: Any, transfer: Any
) -> None:
    plain = sample(mini.model, size=SIZE)
    for nothing in ({"strength": 0.0}, {"start_percent": 0.5, "end_percent": 0.5}):
        assert torch.equal(sample(transfer(**nothing), size=SIZE), plain)
    assert not torch.equal(sample(transfer(), size=SIZE), plain)
    assert torch.equal(sample(mini.model, size=SIZE), plain)


def test_other_sizes_and_steps(mini: SimpleNamespace, sample: Any, transfer: Any) -> None:
    result = sample(transfer(), size=(12, 12), steps=3, sampler="dpm_2", batch=3)
    assert result.isfinite().all()
    assert not torch.equal(result, sample(mini.model, size=(12, 12), steps=3, sampler="dpm_2", batch=3))


def test_what_is_missing_is_said(mini: SimpleNamespace, pack: Any, scene: SimpleNamespace) -> None:
    host = pack("comfy_revelio.host.transfer")
    with pytest.raises(ValueError, match="mask of the part"):
        host.transfer_features(mini.model, scene.sae, host.Side(scene.source, None), host.Side(None, None))
    _, words = host.transfer_features(
        mini.model, scene.sae, host.Side(scene.source, scene.mask), host.Side(None, None), count=3
    )
    assert "3 features added and 0 removed at middle_block.1" in words
