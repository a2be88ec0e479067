"""Words in real sampling runs: which attention is recorded, of which prompt, and what stays unchanged."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..architectures import ARCHITECTURES
from ..conftest import hooks_on

FAMILIES = [
    "sd1",
    "sdxl",
    "sd3",
    "flux",
    "flux2",
    "chroma",
    "qwen-image",
    "lumina2",
    "z-image",
    "auraflow",
    "wan",
]
COLUMNS = ((1,), (2, 4))


@pytest.fixture
def recording(pack: Callable[[str], Any]) -> Any:
    return pack("comfy_revelio.host.record.words")


@pytest.fixture
def run(recording: Any) -> Callable[..., Tensor]:
    """Samples with a model of a family; the prompts carry two words each, unless others are given."""

    def sampled(
        name: str,
        model: Any,
        *,
        cfg: float = 3.0,
        batch: int = 2,
        uncond: int = 0,
        steps: int = 2,
        words: tuple[Any, Any] | None = None,
    ) -> Tensor:
        import comfy.sample

        family = ARCHITECTURES[name]
        latent = family.empty(batch)
        noise = comfy.sample.prepare_noise(latent, 5)
        words = words or tuple(
            recording.PromptWords(words, COLUMNS, family.tokens)
            for words in (("one", "two"), ("three", "four"))
        )
        prompts = [
            [[states, {**more, recording.WORDS: own}] for states, more in family.prompt(seed, tokens)]
            for seed, tokens, own in zip((1, 2), (0, uncond), words, strict=True)
        ]
        return comfy.sample.sample(
            model, noise, steps, cfg, "euler", "simple", *prompts, latent, disable_pbar=True, seed=5
        )

    return sampled


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_changes_and_nothing_stays(built: Any, recording: Any, run: Any, name: str) -> None:
    """Bit for bit, with a batch of two that is not square; every patch of every layer is recorded."""
    model = built(name)
    plain = run(name, model)
    recorded, runs = recording.record_words(model)
    samples = run(name, recorded)
    assert torch.equal(samples, plain)
    assert torch.equal(run(name, model), plain)
    assert hooks_on(model.model) == 0
    trace = runs.trace_of(samples)
    assert trace.roles == ("uncond", "cond") or trace.roles == ("cond", "uncond")
    assert trace.batch_size == 2
    for frame in trace.frames:
        height, width = frame.grid  # of a video the mean over its frames
        assert frame.shares.shape == (2, 2, height * width) and height * width > 1
        assert frame.shares.isfinite().all() and frame.shares.max() > 0
    expected = {point for point in ARCHITECTURES[name].points if _shows_words(point)}
    assert expected <= set(trace.layers)


def _shows_words(point: str) -> bool:
    """Whether the hook point is a block in which the image attends to the prompt."""
    skipped = (
        ".txt",
        "refiner",
        "mlp",
        "linear2",
        "feed_forward",
        "ffn",
        "cross_attn",
        "embedding",
        "input_blocks.1.0",
    )
    return not any(part in point for part in skipped)


def close(found: Tensor, wanted: Tensor) -> None:
    """Equal to what float16 can hold, small numbers too."""
    assert torch.allclose(found, wanted, rtol=2e-3, atol=1e-9)


def share_of_words(q: Tensor, k: Tensor, offset: int = 0) -> Tensor:
    """softmax(q k') once more, in float64 and all at once: [B, heads, n, d] -> [B, words, n]."""
    weights = torch.einsum("bhid,bhjd->bhij", q.double(), k.double()) / q.shape[-1] ** 0.5
    weights = weights.exp() / weights.exp().sum(-1, keepdim=True)
    by_word = [weights[..., [offset + c for c in own]].sum(-1) for own in COLUMNS]
    return torch.stack(by_word, dim=1).mean(2).float()


def heard(modules: dict[str, nn.Module], run_model: Callable[[], Any]) -> tuple[dict[str, list[Any]], Any]:
    """The modules' outputs while a model runs, call by call."""
    seen: dict[str, list[Any]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _m, _a, output, name=name: seen[name].append(output))
        for name, module in modules.items()
    ]
    try:
        return seen, run_model()
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_unets_against_the_formula(built: Any, recording: Any, run: Any, name: str) -> None:
    model = built(name)
    point = "output_blocks.4.1" if name == "sd1" else "output_blocks.0.1"
    blocks = model.model.diffusion_model.get_submodule(point).transformer_blocks
    modules = {
        f"{n}.{part}": getattr(block.attn2, part)
        for n, block in enumerate(blocks)
        for part in ("to_q", "to_k")
    }
    recorded, runs = recording.record_words(model)
    seen, samples = heard(modules, lambda: run(name, recorded, steps=1))
    trace = runs.trace_of(samples)
    wanted = torch.stack(
        [
            share_of_words(
                *(
                    seen[f"{n}.{part}"][0].unflatten(2, (block.attn2.heads, -1)).transpose(1, 2)
                    for part in ("to_q", "to_k")
                )
            )
            for n, block in enumerate(blocks)
        ]
    ).mean(0)  # rows: uncond, uncond, cond, cond
    for role, rows in (("uncond", slice(0, 2)), ("cond", slice(2, 4))):
        (frame,) = trace.select(role, layers=[point])
        close(frame.shares, wanted[rows])


def test_sd3_against_the_formula(built: Any, recording: Any, run: Any) -> None:
    model = built("sd3")
    block = model.model.diffusion_model.joint_blocks[1]
    modules = {
        f"{side}.{part}": getattr(getattr(block, f"{side}_block").attn, part)
        for side in ("context", "x")
        for part in ("ln_q", "ln_k")
    }
    recorded, runs = recording.record_words(model)
    seen, samples = heard(modules, lambda: run("sd3", recorded, steps=1))
    heads = block.x_block.attn.num_heads

    def by_head(x: Tensor) -> Tensor:
        x = x if x.ndim == 4 else x.unflatten(2, (heads, -1))
        return x.transpose(1, 2)

    k = torch.cat([by_head(seen[f"{side}.ln_k"][0]) for side in ("context", "x")], dim=2)
    wanted = share_of_words(by_head(seen["x.ln_q"][0]), k)
    trace = runs.trace_of(samples)
    for role, rows in (("uncond", slice(0, 2)), ("cond", slice(2, 4))):
        (frame,) = trace.select(role, layers=["joint_blocks.1"])
        close(frame.shares, wanted[rows])


@pytest.mark.parametrize("point", ["double_blocks.1", "single_blocks.0"])
def test_flux_against_the_formula(built: Any, recording: Any, run: Any, point: str) -> None:
    """Queries and keys after the norms, turned by the model's own positions."""
    model = built("flux")
    network = model.model.diffusion_model
    block = network.get_submodule(point)
    if point.startswith("double"):
        norms = {"txt": block.txt_attn.norm, "img": block.img_attn.norm}
    else:
        norms = {"both": block.norm}
    recorded, runs = recording.record_words(model)
    seen, samples = heard(
        {**norms, "pe": network.pe_embedder}, lambda: run("flux", recorded, cfg=1.0, steps=1)
    )

    def turned(x: Tensor) -> Tensor:
        pairs = x.float().unflatten(-1, (-1, 2))
        return torch.einsum("bnpij,bhnpj->bhnpi", seen["pe"][0][:, 0].float(), pairs).flatten(-2)

    q, k = (torch.cat([seen[name][0][part] for name in norms], dim=2) for part in (0, 1))
    wanted = share_of_words(turned(q)[:, :, 7:], turned(k))
    (frame,) = runs.trace_of(samples).select("cond", layers=[point])
    close(frame.shares, wanted)


class TestUnets:
    def test_prompts_of_unequal_length_in_one_call(self, built: Any, recording: Any, run: Any) -> None:
        """ComfyUI repeats the shorter one; a word gets what all its copies got, as much as alone."""
        made = recording.PromptWords
        words = made(("one", "two"), COLUMNS, 7), made(("three",), ((12,),), 14)
        recorded, runs = recording.record_words(built("sd1"))
        both = runs.trace_of(run("sd1", recorded, uncond=14, steps=1, words=words))
        alone = runs.trace_of(run("sd1", recorded, cfg=1.0, steps=1))
        assert set(both.roles) == {"cond", "uncond"} and alone.roles == ("cond",)
        for one, other in zip(both.select("cond"), alone.select("cond"), strict=True):
            assert one.layer == other.layer
            assert torch.allclose(one.shares.float(), other.shares.float(), rtol=5e-3, atol=1e-5)

    def test_prompts_of_unequal_length_in_two_calls(self, built: Any, recording: Any, run: Any) -> None:
        made = recording.PromptWords
        words = made(("one",), ((1,),), 7), made(("three",), ((9,),), 10)
        recorded, runs = recording.record_words(built("sd1"))
        trace = runs.trace_of(run("sd1", recorded, uncond=10, words=words))
        steps = {(frame.role, frame.step, frame.evaluation) for frame in trace.frames}
        assert steps == {(role, step, 0) for role in ("cond", "uncond") for step in (0, 1)}

    def test_beside_others_that_replace_the_attention(self, built: Any, recording: Any, run: Any) -> None:
        from comfy.ldm.modules.attention import attention_basic

        model = built("sd1").clone()
        calls = []

        def other(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
            calls.append(options["block"])
            return attention_basic(q, k, v, options["n_heads"])

        model.set_model_attn2_replace(other, "middle", 0)
        plain = run("sd1", model)
        recorded, runs = recording.record_words(model)
        samples = run("sd1", recorded)
        assert torch.equal(samples, plain) and len(calls) == 4
        assert "middle_block.1" in runs.trace_of(samples).layers


def test_beside_another_override(built: Any, recording: Any, run: Any) -> None:
    """Another pack's attention still runs, and its output is what counts."""
    model = built("flux").clone()
    calls = []

    def zeros(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        calls.append(len(args))
        return torch.zeros_like(function(*args, **kwargs))

    options = model.model_options["transformer_options"] = dict(model.model_options["transformer_options"])
    options["optimized_attention_override"] = zeros
    plain = run("flux", model)
    before = len(calls)
    recorded, runs = recording.record_words(model)
    samples = run("flux", recorded)
    assert torch.equal(samples, plain) and len(calls) == 2 * before
    assert "double_blocks.0" in runs.trace_of(samples).layers
    assert not torch.equal(plain, run("flux", built("flux")))


@pytest.mark.parametrize("name", ["sd1", "flux"])
def test_an_error_leaves_nothing(built: Any, recording: Any, run: Any, name: str) -> None:
    model = built(name)
    network = model.model.diffusion_model
    last = network.out[0] if name == "sd1" else network.final_layer
    recorded, runs = recording.record_words(model)

    def fail(*_: Any) -> None:
        raise RuntimeError("inside")

    hook = last.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="inside"):
            run(name, recorded)
    finally:
        hook.remove()
    assert hooks_on(network) == 0 and not runs._open
    with pytest.raises(ValueError, match="Nothing was recorded yet"):
        runs.trace_of(torch.zeros(1))
    assert torch.equal(run(name, recorded), run(name, model))


@pytest.mark.parametrize("name", ["pixart", "hidream", "hunyuandit"])
def test_models_that_cannot_be_read_say_so(built: Any, recording: Any, run: Any, name: str) -> None:
    with pytest.raises(ValueError, match="Words cannot be recorded in this model"):
        recording.record_words(built(name))


def test_in_chunks_as_at_once(built: Any, recording: Any, run: Any, pack: Any, monkeypatch: Any) -> None:
    attention = pack("comfy_revelio.analysis.attention_shares")
    recorded, runs = recording.record_words(built("lumina2"))
    whole = runs.trace_of(run("lumina2", recorded, steps=1))
    monkeypatch.setattr(attention, "CHUNK_BYTES", 1)
    chunked = runs.trace_of(run("lumina2", recorded, steps=1))
    for one, other in zip(whole.frames, chunked.frames, strict=True):
        assert torch.allclose(one.shares.float(), other.shares.float(), rtol=2e-3, atol=1e-6)


def test_a_sampler_that_looks_twice_at_a_step(
    mini: SimpleNamespace, recording: Any, sample: Any, prompts: Any
) -> None:
    positive, negative = recording.encode_prompts(mini.clip, "glasses and a hat", "a beard")
    recorded, runs = recording.record_words(mini.model)
    trace = runs.trace_of(sample(recorded, sampler="dpm_2", steps=3, positive=positive, negative=negative))
    seen = {(frame.step, frame.evaluation) for frame in trace.select("cond")}
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)}
    assert trace.words == {"cond": ("glasses", "and", "a", "hat"), "uncond": ("a", "beard")}


def test_no_hook_is_left_when_hooking_fails(
    mini: SimpleNamespace, pack: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taps = pack("comfy_revelio.host.taps.attention")
    base = mini.model.model
    last = base.diffusion_model.output_blocks[-1][1].transformer_blocks[0].attn2

    def fail(*_: Any) -> None:
        raise RuntimeError("no hook here")

    monkeypatch.setattr(last.to_k, "register_forward_hook", fail)
    before = hooks_on(base.diffusion_model)
    with (
        pytest.raises(RuntimeError, match="no hook here"),
        taps.attention_hooks(base, {}, (1, 4, 8, 8), fail),
    ):
        pass
    assert hooks_on(base.diffusion_model) == before


def text(clip: Any, prompt: str) -> list[Any]:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))


class TestWhosePromptItIs:
    """The words are those of the conditioning that is sampled, whatever the model was recorded with."""

    def test_another_prompt(self, mini: SimpleNamespace, recording: Any, sample: Any) -> None:
        """No map belongs to a word that was not in the sampled prompt."""
        recorded, runs = recording.record_words(mini.model)
        other = text(mini.clip, "a beard and a hat")
        with pytest.raises(ValueError, match="connect the positive and negative outputs of Record Words"):
            runs.trace_of(sample(recorded, positive=other)).select("cond")
        own, _ = recording.encode_prompts(mini.clip, "glasses", "")
        trace = runs.trace_of(sample(recorded, positive=own))
        assert trace.words == {"cond": ("glasses",)} and trace.select("cond")
        with pytest.raises(ValueError, match=r"words of 'uncond' are not known.*connect that output"):
            trace.select("uncond")

    def test_of_two_nodes(self, mini: SimpleNamespace, recording: Any, sample: Any) -> None:
        """The model of one Record Words and the prompts of another."""
        recorded, runs = recording.record_words(mini.model)
        recording.encode_prompts(mini.clip, "a beard", "")
        positive, negative = recording.encode_prompts(mini.clip, "glasses and a hat", "blue hair")
        trace = runs.trace_of(sample(recorded, positive=negative, negative=positive))
        assert trace.words == {"cond": ("blue", "hair"), "uncond": ("glasses", "and", "a", "hat")}

    def test_beside_a_prompt_without_words(self, mini: SimpleNamespace, recording: Any, sample: Any) -> None:
        """Conditioning (Combine): the one whose words are known keeps them, in either order."""
        recorded, runs = recording.record_words(mini.model)
        own, _ = recording.encode_prompts(mini.clip, "glasses", "")
        first = runs.trace_of(sample(recorded, positive=own + text(mini.clip, "a beard")))
        assert first.words == {"cond": ("glasses",)} and first.roles == ("cond",)
        second = runs.trace_of(sample(recorded, positive=text(mini.clip, "a beard") + own))
        assert second.words == {"cond2": ("glasses",)} and second.roles == ("cond2",)

    def test_what_was_emptied_has_no_words(
        self, mini: SimpleNamespace, pack: Callable[[str], Any], recording: Any, sample: Any
    ) -> None:
        """ConditioningZeroOut of the positive prompt as the negative one, as in graphs of Flux."""
        nodes = importlib.import_module("nodes")
        recorded, runs = recording.record_words(mini.model)
        own, _ = recording.encode_prompts(mini.clip, "glasses", "")
        (nothing,) = nodes.ConditioningZeroOut().zero_out(own)
        trace = runs.trace_of(sample(recorded, positive=own, negative=nothing))
        assert trace.words == {"cond": ("glasses",)} and trace.roles == ("cond",)

    def test_through_other_nodes(
        self, mini: SimpleNamespace, pack: Callable[[str], Any], recording: Any, sample: Any
    ) -> None:
        """Nodes that change a conditioning pass its words on; appending to it keeps their positions."""
        nodes = importlib.import_module("nodes")
        recorded, runs = recording.record_words(mini.model)
        own, _ = recording.encode_prompts(mini.clip, "glasses", "")
        (longer,) = nodes.ConditioningConcat().concat(own, text(mini.clip, "a beard"))
        (late,) = nodes.ConditioningSetTimestepRange().set_range(longer, 0.0, 1.0)
        trace = runs.trace_of(sample(recorded, positive=late))
        assert trace.words == {"cond": ("glasses",)}
        assert {len(frame.shares[0]) for frame in trace.select("cond")} == {1}


@pytest.mark.parametrize(("name", "pixels"), [("sd1", 8), ("flux", 8), ("flux2", 16), ("wan", 8)])
def test_pixels_of_a_cell(built: Any, recording: Any, name: str, pixels: int) -> None:
    """The size of masks when no image is connected."""
    _, runs = recording.record_words(built(name))
    assert runs.pixels == pixels
    assert recording.pixel_size(torch.zeros(1, 4, 3, 5), None, runs.pixels) == (3 * pixels, 5 * pixels)
