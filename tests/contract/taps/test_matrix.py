"""Recording on every kind of run: architectures, samplers, guidance, prompts, batches, conditionings.

The cases are generated so that every two values of different factors meet in one of them; REVELIO_CELLS adds
as many others of the whole product, which has 8,640 (the same ones for the same number). For each evaluation
of the sampler, an oracle runs each conditioning alone through the same network and keeps what a plain hook
sees. The trace must hold the same, under the right role and step, on the right grid.
Every case also steers with strength 0, fails inside the network, and is interrupted.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ..architectures import ARCHITECTURES, TEXT, Architecture, randomize
from ..oracle import Expected, Oracle, Subject, compare, hook_counts, mirror

STEPS = 3


def behind(total: int, image: int) -> int:
    """Where the image begins in a sequence that has it after the prompt."""
    return total - image


SUBJECTS = {
    "sd1": Subject("middle_block.1", (16, 8), patch=8),
    "sd2": Subject("output_blocks.4.1", (16, 8)),
    "sdxl": Subject("output_blocks.0.1", (16, 8), patch=4),
    "sd3": Subject("joint_blocks.1", (8, 6), element=1),
    "flux": Subject("single_blocks.1", (8, 6), first=behind),
    "flux2": Subject("single_blocks.1", (4, 3), patch=1, first=behind),
    "chroma": Subject("single_blocks.1", (8, 6), first=behind),
    "qwen-image": Subject("transformer_blocks.1", (1, 8, 6), element=1),
    "lumina2": Subject("layers.1", (8, 6), first=behind),
    "z-image": Subject("layers.1", (8, 6), first=lambda total, image: total - -(-image // 8) * 8),
    "auraflow": Subject("single_layers.1", (8, 6), first=behind),
    "pixart": Subject(
        "blocks.1", (72, 48)
    ),  # ComfyUI divides by zero where an area is much smaller than half
    "hunyuandit": Subject("blocks.3", (8, 6)),
    "hidream": Subject("single_stream_blocks.0", (8, 6)),
    "wan": Subject("blocks.1", (2, 8, 6)),
    "hunyuan video": Subject("double_blocks.1", (2, 8, 6), element=0),
}
# Samplers of two stages evaluate twice in all steps but the last. The last three treat flows differently.
SAMPLERS = {
    "euler": 1,
    "dpm_2": 2,
    "dpmpp_2m_sde": 1,
    "uni_pc": 1,
    "lcm": 1,
    "heun": 2,
    "euler_ancestral": 1,
    "dpmpp_2s_ancestral": 2,
    "res_multistep": 1,
}
FACTORS: dict[str, tuple[Any, ...]] = {
    "name": tuple(SUBJECTS),
    "sampler": tuple(SAMPLERS),
    "cfg": (1.0, 7.0),
    "prompts": ("equal", "unequal", "weighted", "long", "none"),
    "batch": (1, 3),
    "conditioning": ("plain", "area", "several"),
}


def pairwise(factors: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Cases in which every two values of different factors meet at least once.

    Greedy: each next case begins with a pair that is still missing, and takes for every other factor the
    value that brings most missing pairs.
    """
    chance = random.Random(0)
    names = list(factors)
    missing = {
        ((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in factors[a] for y in factors[b]
    }
    cases = []
    while missing:
        case = dict(min(missing, key=repr))
        for name in chance.sample(names, len(names)):
            if name not in case:
                gains = {
                    value: sum(_pair(names, name, value, *other) in missing for other in case.items())
                    for value in factors[name]
                }
                best = max(gains.values())
                case[name] = chance.choice([value for value, gain in gains.items() if gain == best])
        missing -= {_pair(names, a, case[a], b, case[b]) for a, b in itertools.combinations(names, 2)}
        cases.append({name: case[name] for name in names})
    return cases


def _pair(names: list[str], a: str, x: Any, b: str, y: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ((a, x), (b, y)) if names.index(a) < names.index(b) else ((b, y), (a, x))


def cases(more: int) -> list[dict[str, Any]]:
    """Every pair of values, and so many other cells of the product of all factors."""
    found = pairwise(FACTORS)
    cells = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
    others = [cell for cell in cells if cell not in found]
    return found + random.Random(1).sample(others, min(more, len(others)))


CASES = cases(int(os.environ.get("REVELIO_CELLS", "0")))


def test_the_cases_bring_every_pair_together() -> None:
    for a, b in itertools.combinations(FACTORS, 2):
        met = {(case[a], case[b]) for case in CASES}
        assert met == set(itertools.product(FACTORS[a], FACTORS[b]))


@pytest.fixture(scope="module")
def clip(comfyui: Any) -> Any:
    """A small CLIP, for prompts with weights."""
    import comfy.sd
    import comfy.sd1_clip
    from comfy.supported_models_base import ClipTarget

    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": TEXT, "intermediate_size": 48}
    target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    made = comfy.sd.CLIP(target, model_options={"clip_l_model_config": small, "dtype": torch.float32})
    randomize(made.cond_stage_model, seed=1)
    return made


def conditionings(
    architecture: Architecture, subject: Subject, case: dict[str, Any], clip: Any
) -> tuple[Any, Any]:
    """Positive and negative of a case, as ComfyUI's nodes make them."""
    lengths = {"unequal": (7, 11), "long": (21, 7)}.get(case["prompts"], (7, 7))
    positive, negative = architecture.prompt(1, lengths[0]), architecture.prompt(2, lengths[1])
    if case["prompts"] == "none":  # ConditioningZeroOut
        negative[0][0] = torch.zeros_like(negative[0][0])
        negative[0][1]["pooled_output"] = torch.zeros_like(negative[0][1]["pooled_output"])
    if case["prompts"] == "weighted":  # CLIPTextEncode, and ConditioningSetAreaStrength
        from nodes import CLIPTextEncode

        for prompt, words in (
            (positive, "a (hat:1.3) and (round:0.7) glasses"),
            (negative, "(blue:1.4) sky"),
        ):
            prompt[0][0] = CLIPTextEncode().encode(clip, words)[0][0][0][:, : lengths[0]]
        positive[0][1]["strength"] = 1.3
    if case["conditioning"] == "area":  # the lower half, beside a prompt for the whole
        *frames, height, width = subject.latent
        zeros = [0] * len(frames)
        area = (*frames, height // 2, width, *zeros, height // 2, 0)
        positive[0][1]["area"] = area
        positive += architecture.prompt(3, lengths[0])
    if case["conditioning"] == "several":
        positive += architecture.prompt(3, lengths[0]) + architecture.prompt(4, 9)
    return positive, negative


def sample(
    model: Any, latent: Tensor, case: dict[str, Any], conds: tuple[Any, Any], **options: Any
) -> Tensor:
    import comfy.sample

    scheduler = "karras" if case["name"] in ("sd1", "sd2", "sdxl") else "simple"
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(5))
    return comfy.sample.sample(
        model, noise, STEPS, case["cfg"], case["sampler"], scheduler, *conds, latent,
        disable_pbar=True, seed=3, **options,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_recording(pack: Any, built: Callable[[str], Any], clip: Any, case: dict[str, Any]) -> None:
    from comfy.patcher_extension import WrappersMP

    architecture, subject = ARCHITECTURES[case["name"]], SUBJECTS[case["name"]]
    model = built(case["name"])
    network = model.model.diffusion_model
    before = hook_counts(network)
    latent = torch.zeros(case["batch"], architecture.latent[0], *subject.latent)
    sae = mirror(pack, pack("comfy_revelio.hookpoints").resolve(network, subject.point))

    def run(model: Any, **options: Any) -> Tensor:
        return sample(model, latent, case, conditionings(architecture, subject, case, clip), **options)

    oracle = Oracle(model, subject)
    recorded, recorder = pack("comfy_revelio.host.record.features").record(model, sae)
    watched = recorded.clone()
    watched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "oracle", oracle)
    samples = run(watched)
    check(recorder.trace_of(samples), oracle.seen, case)
    assert hook_counts(network) == before

    plain = run(model)
    assert torch.equal(samples, plain)
    steering = pack("comfy_revelio.steering")
    nothing = steering.Intervention(sae.dictionary, steering.Selection((1, 2)), strength=0.0, mode="scale")
    steered = pack("comfy_revelio.host.steering").steer(model, nothing, sae)
    assert torch.equal(run(steered), plain)

    fail_inside(recorded, subject, run)
    assert hook_counts(network) == before
    interrupt(recorded, run)
    assert hook_counts(network) == before


def check(trace: Any, seen: list[Expected], case: dict[str, Any]) -> None:
    """Every frame is one conditioning of one evaluation, and none is missing."""
    stages = SAMPLERS[case["sampler"]]
    want = {(one.role, *divmod(one.number, stages)): one for one in seen}
    roles = {"plain": {"cond"}, "area": {"cond", "cond2"}, "several": {"cond", "cond2", "cond3"}}
    negative = {"uncond", "uncond2"} if case["conditioning"] == "area" else {"uncond"}
    wanted_roles = roles[case["conditioning"]] | (negative if case["cfg"] > 1 else set())
    assert set(trace.roles(trace.hook_points[0])) == wanted_roles
    assert {step for _, step, _ in want} == set(range(STEPS)) and trace.total_steps == STEPS
    compare(trace, want)


def fail_inside(model: Any, subject: Subject, run: Callable[..., Tensor]) -> None:
    """The tapped module fails the second time it is called."""
    calls: list[None] = []

    def fail(*_: Any) -> None:
        calls.append(None)
        if len(calls) == 2:
            raise RuntimeError("inside")

    handle = model.model.diffusion_model.get_submodule(subject.point).register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="inside"):
            run(model)
    finally:
        handle.remove()


def interrupt(model: Any, run: Callable[..., Tensor]) -> None:
    """As the user's Interrupt does it, after the first step."""
    import comfy.model_management as management

    def stop(*_: Any) -> None:
        management.interrupt_current_processing()
        management.throw_exception_if_processing_interrupted()

    with pytest.raises(management.InterruptProcessingException):
        run(model, callback=stop)
    management.interrupt_current_processing(False)
