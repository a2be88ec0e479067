"""Recording in real sampling runs: what is recorded, under which role and step, and for which run."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ..conftest import hooks_on

POINT = "middle_block.1"


@pytest.fixture
def record(pack: Callable[[str], Any]) -> Callable[..., Any]:
    return pack("comfy_revelio.host.record.features").record


def test_recording_does_not_change_the_samples(
    mini: SimpleNamespace, sae: Any, sample: Any, record: Any
) -> None:
    plain = sample(mini.model)
    recorded, _ = record(mini.model, sae())
    assert torch.equal(sample(recorded), plain)
    assert torch.equal(sample(mini.model), plain)


def test_the_codes_are_those_of_the_activation(
    mini: SimpleNamespace, sae: Any, sample: Any, record: Any
) -> None:
    """A separate hook and formula, on a grid that is not square and with a batch of two."""
    handle = sae()
    seen: list[Tensor] = []
    hook = mini.model.model.diffusion_model.middle_block[1].register_forward_hook(
        lambda module, args, output: seen.append(output.clone())
    )
    try:
        model, recorder = record(mini.model, handle)
        samples = sample(model, size=(8, 12), batch=2)
    finally:
        hook.remove()
    trace = recorder.trace_of(samples)
    assert trace.batch_size == 2
    weights = handle.dictionary.W_enc
    feature = trace.top_features(POINT, 1)[0].feature
    for step, activation in enumerate(seen):  # [uncond 0, uncond 1, cond 0, cond 1]
        for row, (role, item) in enumerate([("uncond", 0), ("uncond", 1), ("cond", 0), ("cond", 1)]):
            dense = torch.einsum("chw,nc->nhw", activation[row], weights)
            kept = dense >= dense.topk(8, dim=0).values[-1]
            expected = torch.where(kept, dense, 0.0).relu()[feature]
            found = trace.feature_map(POINT, feature, step=step, item=item, role=role)
            assert found.shape == (4, 6)
            assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "point", ["input_blocks.1.0", "output_blocks.2.1", "middle_block.1.transformer_blocks.0"]
)
def test_other_places(mini: SimpleNamespace, sae: Any, sample: Any, record: Any, point: str) -> None:
    width = 96 if point.startswith("input") else 192
    model, recorder = record(mini.model, sae(point, width=width))
    trace = recorder.trace_of(sample(model, size=(8, 12), steps=2))
    grid = (8, 12) if point.startswith("input") else (4, 6)
    assert {frame.grid for frame in trace.frames} == {grid}


def test_an_alias_names_the_same_place(mini: SimpleNamespace, sae: Any, sample: Any, record: Any) -> None:
    model, recorder = record(mini.model, sae(), "unet.mid_block.attentions.0")
    assert recorder.trace_of(sample(model, steps=1)).hook_points == (POINT,)


def test_the_difference_is_output_minus_input(
    mini: SimpleNamespace, sae: Any, sample: Any, record: Any
) -> None:
    handle = sae(captured="diff")
    seen: list[Tensor] = []
    hook = mini.model.model.diffusion_model.middle_block[1].register_forward_hook(
        lambda module, args, output: seen.append(output - args[0])
    )
    try:
        model, recorder = record(mini.model, handle)
        trace = recorder.trace_of(sample(model, steps=1, cfg=1.0))
    finally:
        hook.remove()
    expected = handle.dictionary.encode(seen[0].flatten(2).transpose(1, 2))
    assert torch.equal(trace.frames[0].codes.indices, expected.indices)


class TestRoles:
    def test_guided(self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any) -> None:
        assert self.roles(mini, sae, sample, record) == {"cond", "uncond"}

    def test_without_guidance_only_the_positive_prompt_runs(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any
    ) -> None:
        assert self.roles(mini, sae, sample, record, cfg=1.0) == {"cond"}

    def test_prompts_of_unequal_length_run_as_two_calls(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any, prompts: Any
    ) -> None:
        cond, extra = prompts("glasses")[0]
        longer = [[torch.cat([cond, cond[:, :3]], dim=1), extra]]  # 80 tokens against 77
        model, recorder = record(mini.model, sae())
        trace = recorder.trace_of(sample(model, positive=longer, steps=3))
        for role in ("cond", "uncond"):
            frames = trace.steps(POINT, role)
            assert [(frame.step, frame.evaluation) for frame in frames] == [(0, 0), (1, 0), (2, 0)]

    def test_two_positive_prompts_keep_their_order(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any, prompts: Any
    ) -> None:
        """ComfyUI runs the batch backwards; the first positive prompt is "cond" all the same."""
        first, second = prompts("glasses"), prompts("a very long beard")
        alone, recorder_alone = record(mini.model, sae())
        one = recorder_alone.trace_of(sample(alone, positive=first, steps=1))
        both, recorder_both = record(mini.model, sae())
        two = recorder_both.trace_of(sample(both, positive=[*first, *second], steps=1))
        assert set(two.roles(POINT)) == {"cond", "cond2", "uncond"}
        close = torch.isclose(
            one.steps(POINT, "cond")[0].codes.values, two.steps(POINT, "cond")[0].codes.values, atol=1e-4
        )
        assert close.all()
        assert not torch.isclose(
            one.steps(POINT, "cond")[0].codes.values, two.steps(POINT, "cond2")[0].codes.values, atol=1e-4
        ).all()

    def test_guiders_with_other_orders(
        self, mini: SimpleNamespace, sae: Any, record: Any, prompts: Any, pack: Any
    ) -> None:
        """DualCFG gives its conditionings to the sampler negative first."""
        import comfy.samplers
        from comfy_extras.nodes_custom_sampler import Guider_DualCFG

        model, recorder = record(mini.model, sae())
        guider = Guider_DualCFG(model)
        guider.set_conds(prompts("glasses"), prompts("beard"), prompts(""))
        guider.set_cfg(3.0, 2.0)
        noise = torch.randn(1, 4, 8, 8)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
        samples = guider.sample(
            noise, torch.zeros(1, 4, 8, 8), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True
        )
        both = recorder.trace_of(samples)
        assert set(both.roles(POINT)) == {"cond", "cond2", "uncond"}

    def test_areas(self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any, prompts: Any) -> None:
        """For a positive prompt with an area ComfyUI copies it to the negative side, identity and all."""
        from nodes import ConditioningSetArea

        (part,) = ConditioningSetArea().append(prompts("glasses"), 32, 32, 0, 0, 1.0)
        model, recorder = record(mini.model, sae())
        trace = recorder.trace_of(sample(model, positive=part + prompts("beard"), steps=2, size=(8, 16)))
        grids = {"cond": (2, 2), "uncond2": (2, 2), "cond2": (4, 8), "uncond": (4, 8)}
        for role, grid in grids.items():
            frames = trace.steps(POINT, role)
            assert [(frame.step, frame.evaluation, frame.grid) for frame in frames] == [
                (0, 0, grid),
                (1, 0, grid),
            ]

    @staticmethod
    def roles(mini: SimpleNamespace, sae: Any, sample: Any, record: Any, **options: Any) -> set[str]:
        model, recorder = record(mini.model, sae())
        return set(recorder.trace_of(sample(model, **options)).roles(POINT))


class TestSteps:
    @pytest.mark.parametrize(
        "sampler", ["euler", "dpm_2", "heun", "uni_pc", "lms", "ddim", "euler_ancestral"]
    )
    def test_every_step_is_there_in_order(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any, sampler: str
    ) -> None:
        model, recorder = record(mini.model, sae())
        trace = recorder.trace_of(sample(model, sampler=sampler, scheduler="karras", steps=5))
        frames = trace.steps(POINT)
        assert [frame.step for frame in frames] == list(range(trace.total_steps))
        assert trace.total_steps == len(trace.sigmas) - 1
        for frame in frames:
            assert frame.sigma == pytest.approx(trace.sigmas[frame.step], rel=1e-3)

    def test_a_second_order_sampler_evaluates_twice_within_its_step(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any
    ) -> None:
        model, recorder = record(mini.model, sae())
        trace = recorder.trace_of(sample(model, sampler="dpm_2", steps=4, cfg=1.0))
        assert [(frame.step, frame.evaluation) for frame in trace.frames] == [
            (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0),
        ]  # fmt: skip

    @pytest.mark.parametrize("sampler", ["heun", "heunpp2"])
    def test_what_looks_ahead_belongs_to_the_step_that_asked(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any, sampler: str
    ) -> None:
        """Heun's corrector is evaluated at the sigma where the next step begins."""
        model, recorder = record(mini.model, sae())
        trace = recorder.trace_of(sample(model, sampler=sampler, steps=4, cfg=1.0))
        own = [frame for frame in trace.frames if frame.evaluation == 0]
        assert [frame.step for frame in own] == [0, 1, 2, 3]
        for frame in trace.frames:
            ahead = frame.step + frame.evaluation
            assert frame.sigma == pytest.approx(trace.sigmas[ahead], rel=1e-4)
        counts = [sum(frame.step == step for frame in trace.frames) for step in range(4)]
        assert counts == ([2, 2, 2, 1] if sampler == "heun" else [3, 3, 2, 1])

    def test_part_of_a_schedule(self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any) -> None:
        model, recorder = record(mini.model, sae())
        trace = recorder.trace_of(sample(model, steps=4, denoise=0.5))
        assert trace.total_steps == 4
        assert [frame.step for frame in trace.steps(POINT)] == [0, 1, 2, 3]
        assert trace.frames[0].timestep < 600

    def test_the_percent_is_that_of_other_nodes(self, mini: SimpleNamespace, pack: Any) -> None:
        percent_of = pack("comfy_revelio.host.taps.runs").percent_of
        sampling = mini.model.get_model_object("model_sampling")
        for percent in (0.1, 0.25, 0.5, 0.9):
            assert percent_of(sampling.percent_to_sigma(percent), sampling) == pytest.approx(
                percent, abs=1e-3
            )
        assert percent_of(float(sampling.sigma_max), sampling) == pytest.approx(0.0, abs=1e-3)
        assert percent_of(0.0, sampling) == 1.0


class TestRuns:
    def test_several_samplers_share_one_recorded_model(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any
    ) -> None:
        model, recorder = record(mini.model, sae())
        first, second = sample(model, steps=2), sample(model, steps=3, size=(8, 12))
        assert recorder.trace_of(second).total_steps == 3
        assert recorder.trace_of(first).total_steps == 2
        assert len(recorder.trace_of(first).frames) == 4

    def test_a_new_seed_is_a_new_run(self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any) -> None:
        """The Record node stays cached when only the sampler's seed changes."""
        model, recorder = record(mini.model, sae())
        traces = [recorder.trace_of(sample(model, seed=seed, steps=2)) for seed in (1, 2)]
        assert [len(trace.frames) for trace in traces] == [4, 4]
        assert not torch.equal(traces[0].frames[-1].codes.values, traces[1].frames[-1].codes.values)

    def test_old_runs_are_let_go(self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any) -> None:
        model, recorder = record(mini.model, sae())
        samples = [sample(model, seed=seed, steps=1, cfg=1.0) for seed in range(10)]
        recorder.trace_of(samples[2])
        with pytest.raises(ValueError, match="last 8 runs"):
            recorder.trace_of(samples[1])
        assert not recorder._open

    def test_large_runs_are_let_go_sooner(
        self, mini: SimpleNamespace, sae: Any, sample: Any, pack: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept_runs = pack("comfy_revelio.host.record.kept_runs")
        model, recorder = pack("comfy_revelio.host.record.features").record(mini.model, sae())
        size = recorder.trace_of(sample(model, steps=1)).nbytes
        assert size == 2 * 16 * 8 * 12  # roles, tokens, k, and bytes of a code
        monkeypatch.setattr(kept_runs, "KEPT_BYTES", 2 * size)
        samples = [sample(model, seed=seed, steps=1) for seed in range(3)]
        recorder.trace_of(samples[1])
        with pytest.raises(ValueError, match="last 8 runs"):
            recorder.trace_of(samples[0])
        monkeypatch.setattr(kept_runs, "KEPT_BYTES", 1)
        recorder.trace_of(sample(model, seed=9, steps=1))  # the last one always stays

    def test_a_latent_from_elsewhere(self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any) -> None:
        model, recorder = record(mini.model, sae())
        with pytest.raises(ValueError, match="Nothing was recorded yet"):
            recorder.trace_of(torch.zeros(1, 4, 8, 8))
        sample(model, steps=1)
        with pytest.raises(ValueError, match="does not come straight from a sampler"):
            recorder.trace_of(torch.zeros(1, 4, 8, 8))

    def test_the_denoised_output_of_a_custom_sampler(
        self, mini: SimpleNamespace, sae: Any, record: Any, prompts: Any
    ) -> None:
        from comfy_extras import nodes_custom_sampler as custom

        model, recorder = record(mini.model, sae())
        guider = custom.CFGGuider.execute(model, prompts("glasses"), prompts(""), 3.0)[0]
        sigmas = custom.BasicScheduler.execute(model, "normal", 4, 1.0)[0][:3]  # stops with noise left
        sampler = custom.KSamplerSelect.execute("euler")[0]
        noise = custom.RandomNoise.execute(5)[0]
        output, denoised = custom.SamplerCustomAdvanced.execute(
            noise, guider, sampler, sigmas, {"samples": torch.zeros(1, 4, 8, 8)}
        ).args
        assert not torch.equal(output["samples"], denoised["samples"])
        assert recorder.trace_of(output["samples"]) is recorder.trace_of(denoised["samples"])

    @pytest.mark.parametrize("interrupt", [False, True])
    def test_a_broken_run_leaves_nothing_and_the_next_one_works(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any, interrupt: bool
    ) -> None:
        import comfy.model_management as management

        plain = sample(mini.model)
        model, recorder = record(mini.model, sae())
        error = management.InterruptProcessingException if interrupt else RuntimeError

        def stop(step: int, *_: Any) -> None:
            if step == 1 and interrupt:
                management.interrupt_current_processing()
                management.throw_exception_if_processing_interrupted()
            elif step == 1:
                raise RuntimeError("in the middle")

        with pytest.raises(error):
            sample(model, callback=stop)
        management.interrupt_current_processing(False)
        assert not recorder._open
        assert not recorder._kept._traces
        assert torch.equal(sample(mini.model), plain)
        assert torch.equal(sample(model), plain)
        assert len(recorder._kept._traces) == 1

    def test_an_error_inside_the_network(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any
    ) -> None:
        model, _ = record(mini.model, sae())
        later = mini.model.model.diffusion_model.out[0]

        def fail(*_: Any) -> None:
            raise RuntimeError("inside")

        hook = later.register_forward_pre_hook(fail)
        try:
            with pytest.raises(RuntimeError, match="inside"):
                sample(model)
        finally:
            hook.remove()

    def test_an_error_while_the_hooks_are_registered(
        self, mini: SimpleNamespace, sae: Any, sample: Any, record: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pre-hook of an SAE of output minus input is on the network when the second hook fails."""
        model, _ = record(mini.model, sae(captured="diff"))
        network = mini.model.model.diffusion_model

        def fail(*_: Any, **__: Any) -> None:
            assert hooks_on(network) == 1
            raise RuntimeError("no hook here")

        monkeypatch.setattr(network.middle_block[1], "register_forward_hook", fail)
        with pytest.raises(RuntimeError, match="no hook here"):
            sample(model)
        assert hooks_on(network) == 0
