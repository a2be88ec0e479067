"""Recording on every kind of run: architectures, samplers, guidance, prompts, batches, conditionings.

The cases are generated so that every two values of different factors meet in one of them. An oracle stands
at the sampler's side: for each evaluation it runs each conditioning alone through the same network, and
notes what a plain hook sees. The trace must say the same, under the right role and step, on the right grid.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .architectures import ARCHITECTURES, Architecture

STEPS = 3


@dataclass(frozen=True)
class Subject:
    """An architecture in the matrix. latent: (frames,) height, width. element: of the module's tuple.
    first: where the picture's tokens begin in a sequence of so many, of which so many are the picture's.
    """

    point: str
    latent: tuple[int, ...]
    patch: int = 2
    element: int | None = None
    first: Callable[[int, int], int] = lambda total, image: 0


SUBJECTS = {
    "sd1": Subject("middle_block.1", (16, 8), patch=8),
    "sdxl": Subject("output_blocks.0.1", (16, 8), patch=4),
    "sd3": Subject("joint_blocks.1", (8, 6), element=1),
    "flux": Subject("single_blocks.1", (8, 6), first=lambda total, image: total - image),
    "z-image": Subject("layers.1", (8, 6), first=lambda total, image: total - -(-image // 8) * 8),
    "auraflow": Subject("single_layers.1", (8, 6), first=lambda total, image: total - image),
    "hidream": Subject("single_stream_blocks.0", (8, 6)),
    "wan": Subject("blocks.1", (2, 8, 6)),
}
# Those of two stages evaluate twice in all steps but the last.
SAMPLERS = {"euler": 1, "dpm_2": 2, "dpmpp_2m_sde": 1, "uni_pc": 1, "lcm": 1, "heun": 2}
FACTORS: dict[str, tuple[Any, ...]] = {
    "name": tuple(SUBJECTS),
    "sampler": tuple(SAMPLERS),
    "cfg": (1.0, 7.0),
    "prompts": ("equal", "unequal", "weighted", "long", "none"),
    "batch": (1, 3),
    "conditioning": ("plain", "area", "several"),
    "broken_by": ("exception", "interrupt"),
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


CASES = pairwise(FACTORS)


def test_the_cases_bring_every_pair_together() -> None:
    for a, b in itertools.combinations(FACTORS, 2):
        met = {(case[a], case[b]) for case in CASES}
        assert met == set(itertools.product(FACTORS[a], FACTORS[b]))


@dataclass(frozen=True)
class Expected:
    """What the oracle saw of one conditioning in one evaluation: tokens [B, T, C] on their grid.

    number: of the evaluation in the run.
    """

    number: int
    role: str
    sigma: float
    grid: tuple[int, ...]
    tokens: Tensor


class Oracle:
    """Runs each conditioning of each evaluation alone, before the sampler runs them together."""

    def __init__(self, model: Any, subject: Subject) -> None:
        self.subject = subject
        self.network = model.model.diffusion_model
        self.module = self.network.get_submodule(subject.point)
        self.seen: list[Expected] = []
        self.evaluations = 0
        self._shape: tuple[int, ...] = ()
        self._output: Any = None

    def __call__(
        self, executor: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, options: Any
    ) -> Any:
        """A CALC_COND_BATCH wrapper; `conds` are the positive and the negative conditionings."""
        handles = [
            self.network.register_forward_pre_hook(self._entered),
            self.module.register_forward_hook(self._heard),
        ]
        try:
            for base, entries in zip(("cond", "uncond"), conds, strict=True):
                for number, entry in enumerate(entries or (), start=1):
                    role = base if number == 1 else f"{base}{number}"
                    self._alone(model, entry, x, timestep, options, role)
        finally:
            for handle in handles:
                handle.remove()
        self.evaluations += 1
        return executor(model, conds, x, timestep, options)

    def _alone(self, model: Any, entry: Any, x: Tensor, timestep: Tensor, options: Any, role: str) -> None:
        import comfy.samplers

        sigmas = options["transformer_options"]["sample_sigmas"]
        bare = {"transformer_options": {"sample_sigmas": sigmas}}
        comfy.samplers.calc_cond_batch(model, [[entry]], x, timestep, bare)
        output = self._output if self.subject.element is None else self._output[self.subject.element]
        patch = self.subject.patch
        grid = tuple(side // patch for side in self._shape[-2:])
        if len(self._shape) == 5:
            grid = (self._shape[2], *grid)
        if output.ndim == 4:
            tokens = output.flatten(2).transpose(1, 2)
        else:
            image = int(torch.tensor(grid).prod())
            first = self.subject.first(output.shape[1], image)
            tokens = output[:, first : first + image]
        self.seen.append(Expected(self.evaluations, role, float(timestep[0]), grid, tokens.clone()))

    def _entered(self, _module: nn.Module, args: Any) -> None:
        self._shape = tuple(args[0].shape)

    def _heard(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._output = output


def conditionings(architecture: Architecture, subject: Subject, case: dict[str, Any]) -> tuple[Any, Any]:
    """Positive and negative of a case, as ComfyUI's nodes make them."""
    lengths = {"unequal": (7, 11), "long": (21, 7)}.get(case["prompts"], (7, 7))
    positive, negative = architecture.prompt(1, lengths[0]), architecture.prompt(2, lengths[1])
    if case["prompts"] == "none":  # ConditioningZeroOut
        negative[0][0] = torch.zeros_like(negative[0][0])
        negative[0][1]["pooled_output"] = torch.zeros_like(negative[0][1]["pooled_output"])
    if case["prompts"] == "weighted":  # ConditioningSetAreaStrength
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

    scheduler = "karras" if case["name"] in ("sd1", "sdxl") else "simple"
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(5))
    return comfy.sample.sample(
        model, noise, STEPS, case["cfg"], case["sampler"], scheduler, *conds, latent,
        disable_pbar=True, seed=3, **options,
    )  # fmt: skip


def hook_counts(network: nn.Module) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_recording(pack: Any, built: Callable[[str], Any], case: dict[str, Any]) -> None:
    from comfy.patcher_extension import WrappersMP

    architecture, subject = ARCHITECTURES[case["name"]], SUBJECTS[case["name"]]
    model = built(case["name"])
    network = model.model.diffusion_model
    before = hook_counts(network)
    latent = torch.zeros(case["batch"], architecture.latent[0], *subject.latent)
    sae = mirror(pack, pack("comfy_revelio.hookpoints").resolve(network, subject.point))

    oracle = Oracle(model, subject)
    recorded, recorder = pack("comfy_revelio.host.recording").record(model, sae)
    watched = recorded.clone()
    watched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "oracle", oracle)
    samples = sample(watched, latent, case, conditionings(architecture, subject, case))
    check(recorder.trace_of(samples), oracle.seen, case)
    assert hook_counts(network) == before

    plain = sample(model, latent, case, conditionings(architecture, subject, case))
    assert torch.equal(samples, plain)
    steering = pack("comfy_revelio.steering")
    nothing = steering.Intervention(sae.dictionary, steering.Selection((1, 2)), strength=0.0, mode="scale")
    steered = pack("comfy_revelio.host.steering").steer(model, nothing, sae)
    assert torch.equal(sample(steered, latent, case, conditionings(architecture, subject, case)), plain)

    break_off(recorded, latent, case, conditionings(architecture, subject, case))
    assert hook_counts(network) == before


def mirror(pack: Any, hook_point: Any) -> Any:
    """An SAE whose codes are the activations themselves: a feature for either sign of each number."""
    width = hook_point.width
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    zeros = torch.zeros(width)
    dictionary = pack("comfy_revelio.dictionary").Dictionary(
        both, torch.zeros(2 * width), both.clone(), zeros, zeros.clone(), k=width, hook_point=hook_point.name
    )
    return pack("comfy_revelio.host.sae_files").handle(dictionary, "mirror.safetensors")


def check(trace: Any, seen: list[Expected], case: dict[str, Any]) -> None:
    """Every frame is one conditioning of one evaluation, and none is missing."""
    stages = SAMPLERS[case["sampler"]]
    want = {(one.role, *divmod(one.number, stages)): one for one in seen}
    roles = {"plain": {"cond"}, "area": {"cond", "cond2"}, "several": {"cond", "cond2", "cond3"}}
    negative = {"uncond", "uncond2"} if case["conditioning"] == "area" else {"uncond"}
    wanted_roles = roles[case["conditioning"]] | (negative if case["cfg"] > 1 else set())
    assert set(trace.roles(trace.hook_points[0])) == wanted_roles
    assert {step for _, step, _ in want} == set(range(STEPS)) and trace.total_steps == STEPS
    frames = {(frame.role, frame.step, frame.evaluation): frame for frame in trace.frames}
    assert len(frames) == len(trace.frames) and frames.keys() == want.keys()
    for key, expected in want.items():
        frame = frames[key]
        assert frame.grid == expected.grid
        assert frame.sigma == pytest.approx(expected.sigma, rel=1e-5)
        dense = frame.codes.dense()
        width = dense.shape[-1] // 2
        found = dense[..., :width] - dense[..., width:]
        assert found.shape == expected.tokens.shape
        assert (found - expected.tokens).abs().max() <= 1e-4 * expected.tokens.abs().max(), key


def break_off(model: Any, latent: Tensor, case: dict[str, Any], conds: tuple[Any, Any]) -> None:
    """A run that fails inside the network, or is interrupted after its first step."""
    import comfy.model_management as management

    network = model.model.diffusion_model

    def fail(*_: Any) -> None:
        raise RuntimeError("inside")

    def interrupt(*_: Any) -> None:
        management.interrupt_current_processing()
        management.throw_exception_if_processing_interrupted()

    if case["broken_by"] == "interrupt":
        with pytest.raises(management.InterruptProcessingException):
            sample(model, latent, case, conds, callback=interrupt)
        management.interrupt_current_processing(False)
        return
    handle = network.register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="inside"):
            sample(model, latent, case, conds)
    finally:
        handle.remove()
