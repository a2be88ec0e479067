"""Recording and steering beside what other nodes do to a model: LoRA, FreeU, PAG, ControlNet, compiling.

Each is held against an oracle of plain hooks on the model that the other node alone has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..architectures import ARCHITECTURES, randomize
from ..conftest import hooks_on
from ..oracle import Oracle, Subject, compare, mirror

SUBJECT = Subject("middle_block.1", (16, 8), patch=8)
STEPS = 2
FEATURE = 5
STRENGTH = 6.0


def nothing(model: Any) -> Any:
    return model.clone()


def lora(model: Any) -> Any:
    """Weights of a layer before the hook point and of one after it."""
    import comfy.sd

    generator = torch.Generator().manual_seed(1)
    weights = {}
    for block in ("input_blocks.4.1", "output_blocks.4.1"):
        path = f"{block}.transformer_blocks.0.attn2.to_v"
        height, width = model.model.diffusion_model.get_submodule(path).weight.shape
        key = f"diffusion_model.{path}"
        weights[f"{key}.lora_up.weight"] = torch.randn(height, 4, generator=generator)
        weights[f"{key}.lora_down.weight"] = torch.randn(4, width, generator=generator)
    return comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)[0]


def freeu(model: Any) -> Any:
    from comfy_extras.nodes_freelunch import FreeU_V2

    return by_node(FreeU_V2, model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)


def perturbed_attention(model: Any) -> Any:
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return by_node(PerturbedAttentionGuidance, model, scale=3.0)


def attention_patch(model: Any) -> Any:
    """Like IP-Adapter nodes: changes what cross-attention sees."""
    clone = model.clone()
    clone.set_model_attn2_patch(lambda q, k, v, options: (q, k * 1.1, v))
    return clone


def compiled(model: Any) -> Any:
    """What TorchCompileModel does, with the backend that needs no compiler."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    clone = model.clone()
    set_torch_compile_wrapper(model=clone, backend="eager")
    return clone


def by_node(node: Any, model: Any, **values: Any) -> Any:
    if hasattr(node, "execute"):
        return node.execute(model, **values)[0]
    return getattr(node(), node.FUNCTION)(model, **values)[0]


OTHERS = [lora, freeu, perturbed_attention, attention_patch, compiled]


@pytest.fixture
def model(built: Callable[[str], Any]) -> Any:
    return built("sd1")


@pytest.fixture(scope="module")
def control_net(built: Callable[[str], Any]) -> Any:
    """A ControlNet of the small model's kind, its weights random as if it had been trained."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    subject = built("sd1")
    known = {
        key: value for key, value in subject.model.model_config.unet_config.items() if key != "out_channels"
    }
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, operations=comfy.ops.disable_weight_init, **known)
    randomize(network, seed=3)
    return comfy.controlnet.ControlNet(network.eval(), load_device=subject.load_device)


@pytest.fixture
def controlled(control_net: Any) -> Any:
    """(positive, negative) with a ControlNet on both, as ControlNetApplyAdvanced gives them."""
    from nodes import ControlNetApplyAdvanced

    hint = torch.rand(1, 128, 64, 3, generator=torch.Generator().manual_seed(4))
    return ControlNetApplyAdvanced().apply_controlnet(*plain_prompts(), control_net, hint, 0.8, 0.0, 1.0)


def plain_prompts() -> tuple[Any, Any]:
    return ARCHITECTURES["sd1"].prompt(1), ARCHITECTURES["sd1"].prompt(2)


def sample(model: Any, conds: tuple[Any, Any]) -> Tensor:
    import comfy.sample

    latent = torch.zeros(2, 4, *SUBJECT.latent)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(5))
    return comfy.sample.sample(
        model, noise, STEPS, 5.0, "euler", "normal", *conds, latent, disable_pbar=True, seed=1
    )


def sae_of(pack: Any, model: Any) -> Any:
    return mirror(pack, pack("comfy_revelio.hookpoints").resolve(model.model.diffusion_model, SUBJECT.point))


def steer(pack: Any, model: Any, sae: Any) -> Any:
    """One direction is added everywhere, to the positive half."""
    steering = pack("comfy_revelio.steering")
    change = steering.Intervention(
        sae.dictionary, steering.Selection((FEATURE,)), STRENGTH, mode="add", unit="code"
    )
    return pack("comfy_revelio.host.steering").steer(model, change, sae)


def steered_by_hand(model: Any, conds: tuple[Any, Any]) -> Tensor:
    """The same change by a plain hook that stays on the module."""

    def push(_module: nn.Module, args: Any, output: Tensor) -> Tensor:
        kinds = args[2]["cond_or_uncond"]
        moved = output.clone()
        for kind, rows in zip(kinds, moved.chunk(len(kinds)), strict=True):
            if kind == 0:
                rows[:, FEATURE] += STRENGTH
        return moved

    handle = model.model.diffusion_model.get_submodule(SUBJECT.point).register_forward_hook(push)
    try:
        return sample(model, conds)
    finally:
        handle.remove()


def check_recording(pack: Any, plain: Any, recorded: Any, recorder: Any, conds: Any, calls: int = 1) -> None:
    """plain, recorded: the model as the other node made it, without and with the recorder.

    calls: how often the positive prompt runs in a step.
    """
    from comfy.patcher_extension import WrappersMP

    oracle = Oracle(plain, SUBJECT)
    watched = recorded.clone()
    watched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "oracle", oracle)
    samples = sample(watched, conds)
    compare(recorder.trace_of(samples), {(one.role, *divmod(one.number, calls)): one for one in oracle.seen})
    assert torch.equal(samples, sample(plain, conds))


@pytest.mark.parametrize("recorder_first", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_recording_beside(pack: Any, model: Any, other: Callable[[Any], Any], recorder_first: bool) -> None:
    """A call that another node adds, as PAG does, counts as another evaluation of the step."""
    record = pack("comfy_revelio.host.record.features").record
    before = sample(model, plain_prompts())
    if recorder_first:
        recorded, recorder = record(model, sae_of(pack, model))
        recorded = other(recorded)
    else:
        recorded, recorder = record(other(model), sae_of(pack, model))
    calls = 2 if other is perturbed_attention else 1
    check_recording(pack, other(model), recorded, recorder, plain_prompts(), calls)
    assert hooks_on(model.model) == 0
    assert torch.equal(sample(model, plain_prompts()), before)


@pytest.mark.parametrize("steering_first", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_steering_beside(pack: Any, model: Any, other: Callable[[Any], Any], steering_first: bool) -> None:
    conds, sae = plain_prompts(), sae_of(pack, model)
    before = sample(model, conds)
    steered = other(steer(pack, model, sae)) if steering_first else steer(pack, other(model), sae)
    found, want = sample(steered, conds), steered_by_hand(other(model), conds)
    assert torch.allclose(found, want, atol=1e-4)
    assert not torch.allclose(found, sample(other(model), conds), atol=1e-2)
    assert not torch.allclose(found, sample(steer(pack, model, sae), conds), atol=1e-3) or other is compiled
    assert hooks_on(model.model) == 0
    assert torch.equal(sample(model, conds), before)


@pytest.mark.parametrize("other", [nothing, lora, compiled])
def test_beside_a_controlnet(
    pack: Any, model: Any, control_net: Any, controlled: Any, other: Callable[[Any], Any]
) -> None:
    """The model itself is recorded, not the ControlNet that has modules of the same names."""
    record = pack("comfy_revelio.host.record.features").record
    changed, sae = other(model), sae_of(pack, model)
    before = sample(changed, controlled)
    assert not torch.allclose(before, sample(changed, plain_prompts()), atol=1e-2)
    recorded, recorder = record(changed, sae)
    check_recording(pack, changed, recorded, recorder, controlled)
    found, want = sample(steer(pack, changed, sae), controlled), steered_by_hand(changed, controlled)
    assert torch.allclose(found, want, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-2)
    assert hooks_on(model.model) == 0 and hooks_on(control_net.control_model) == 0
    assert torch.equal(sample(changed, controlled), before)
