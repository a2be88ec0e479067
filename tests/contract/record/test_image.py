"""A real image shown to the model: the same codes as noising and one forward pass by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

POINT = "middle_block.1"


@pytest.fixture
def host(pack: Any) -> Any:
    return pack("comfy_revelio.host.record.image")


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(3))


def by_hand(mini: SimpleNamespace, image: Tensor, context: Tensor, time: int, seed: int) -> Tensor:
    """sqrt(abar) x0 + sqrt(1 - abar) noise at an integer timestep, through the bare network: [B, T, C]."""
    import comfy.sample

    model = mini.model.model
    x0 = model.process_latent_in(mini.vae.encode(image))
    noise = comfy.sample.prepare_noise(x0, seed)
    abar = 1 / (1 + model.model_sampling.sigmas[time] ** 2)
    seen: list[Tensor] = []
    hook = model.diffusion_model.middle_block[1].register_forward_hook(lambda m, a, out: seen.append(out))
    try:
        with torch.no_grad():
            model.diffusion_model(
                abar.sqrt() * x0 + (1 - abar).sqrt() * noise,
                torch.full((len(x0),), float(time)),
                context=context.expand(len(x0), -1, -1),
            )
    finally:
        hook.remove()
    return seen[0].flatten(2).transpose(1, 2)


def test_the_codes_are_those_of_one_forward_pass_each(
    host: Any, mini: SimpleNamespace, sae: Any, prompts: Any, image: Tensor
) -> None:
    handle, positive = sae(), prompts("a portrait")
    trace = host.record_image(mini.model, mini.vae, handle, image, positive, "25, 500; 100, 25", seed=9)
    assert [frame.timestep for frame in trace.frames] == [500.0, 100.0, 25.0]
    assert [(frame.step, frame.role, frame.grid) for frame in trace.frames] == [
        (step, "cond", (4, 6)) for step in range(3)
    ]
    assert trace.total_steps == 3
    for frame in trace.frames:
        tokens = by_hand(mini, image, positive[0][0], int(frame.timestep), 9)
        assert torch.allclose(frame.codes.dense(), handle.dictionary.encode(tokens).dense(), atol=1e-3)


def test_the_prompt_and_the_noise_count(
    host: Any, mini: SimpleNamespace, sae: Any, prompts: Any, image: Tensor
) -> None:
    def values(text: str, seed: int) -> Tensor:
        trace = host.record_image(mini.model, mini.vae, sae(), image, prompts(text), "100", seed=seed)
        return trace.frames[0].codes.dense()

    plain = values("", 1)
    assert torch.equal(values("", 1), plain)
    assert not torch.equal(values("glasses", 1), plain)
    assert not torch.equal(values("", 2), plain)


def test_a_pooled_sae_reads_the_mean(
    host: Any, mini: SimpleNamespace, sae: Any, prompts: Any, image: Tensor
) -> None:
    handle = sae(pooling="spatial_mean")
    trace = host.record_image(mini.model, mini.vae, handle, image, prompts(""), "100", seed=9)
    (frame,) = trace.frames
    mean = by_hand(mini, image, prompts("")[0][0], 100, 9).mean(1, keepdim=True)
    assert frame.grid == (1, 1)
    assert torch.allclose(frame.codes.dense(), handle.dictionary.encode(mean).dense(), atol=1e-3)
    maps = host.record_image(
        mini.model, mini.vae, handle, image, prompts(""), "100", pooling="token"
    ).feature_map(POINT, 3)
    assert maps.shape == (1, 4, 6)


@pytest.mark.parametrize("text", ["", "1000", "-1", "a few", "nan", ",".join(map(str, range(65)))])
def test_timesteps_that_cannot_be(host: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"timestep"):
        host.parse_timesteps(text)


def test_another_vae_is_refused(
    host: Any, mini: SimpleNamespace, sae: Any, prompts: Any, image: Tensor
) -> None:
    class Other:
        def encode(self, pixels: Tensor) -> Tensor:
            return torch.ones(len(pixels), 16, 8, 12)

    with pytest.raises(ValueError, match=r"16 channels.*takes 4"):
        host.record_image(mini.model, Other(), sae(), image, prompts(""), "100")


@pytest.mark.parametrize(
    ("kind", "settings", "time", "sigma"),
    [
        ("ModelSamplingDiscrete", {}, 500, None),
        ("ModelSamplingDiscreteFlow", {"shift": 3.0}, 250, 0.25),
        ("ModelSamplingDiscreteFlow", {"shift": 3.0, "multiplier": 1.0}, 250, 0.25),
        ("ModelSamplingFlux", {"shift": 1.15}, 250, 0.25),
        ("ModelSamplingFlux", {"shift": 1.15}, 0, 0.0),
        ("ModelSamplingFlux", {"shift": 1.15}, 1, 0.001),
        ("ModelSamplingDiscreteFlow", {"shift": 3.0, "multiplier": 1.0}, 1, 0.001),
        ("ModelSamplingDiscreteFlow", {"shift": 3.0}, 25, 0.025),
    ],
)
def test_timesteps_of_other_families(
    host: Any, comfyui: Any, kind: str, settings: dict[str, float], time: int, sigma: float | None
) -> None:
    import comfy.model_sampling

    sampling = getattr(comfy.model_sampling, kind)(SimpleNamespace(sampling_settings=settings))
    expected = float(sampling.sigmas[time]) if sigma is None else sigma
    assert host.sigma_at(float(time), sampling) == pytest.approx(expected, rel=1e-5)
