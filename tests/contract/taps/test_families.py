"""Hook points of every family, on ComfyUI's own classes: a tap sees what a plain forward hook sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..architectures import ARCHITECTURES, Architecture, Spot
from ..conftest import hooks_on
from ..seen import Seen, sample

NAMES = tuple(ARCHITECTURES)


@contextmanager
def listening(model: Any, paths: list[str], *, difference: bool = False) -> Iterator[list[dict[str, Any]]]:
    """Plain hooks on modules: for each model call, each output (or output minus input), and the order of the
    conditionings in it."""
    calls: list[dict[str, Any]] = []
    network = model.model.diffusion_model
    inputs: dict[str, Any] = {}
    handles = []

    def started(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        calls.append({"": list(kwargs["transformer_options"]["cond_or_uncond"])})

    def heard(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            several = isinstance(output, tuple)
            calls[-1][path] = tuple(copied(part) for part in output) if several else output.clone()

        return hook

    def entered(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            inputs[path] = [value.clone() for value in tensors]

        return hook

    def copied(part: Any) -> Any:
        return part.clone() if isinstance(part, Tensor) else part

    try:
        handles.append(network.register_forward_pre_hook(started, with_kwargs=True))
        for path in paths:
            module = network.get_submodule(path)
            handles.append(module.register_forward_hook(heard(path)))
            if difference:
                handles.append(module.register_forward_pre_hook(entered(path), with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def expected(output: Any, spot: Spot, rows: slice, network: nn.Module) -> Tensor:
    """The tokens [B, T, C] of some rows, selected by hand."""
    own = output if spot.element is None else output[spot.element]
    if own.ndim > 3:
        return own[rows].flatten(2).transpose(1, 2)
    return own[rows, spot.tokens_in(network)]


@pytest.mark.parametrize("cfg", [1.0, 7.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_tap_sees_what_a_plain_hook_sees(
    built: Any, taps: Any, resolve: Any, name: str, cfg: float
) -> None:
    architecture = ARCHITECTURES[name]
    model = tapped = built(name)
    seen = Seen()
    points = {point: resolve(model, point) for point in architecture.points}
    for point, hook_point in points.items():
        tapped = taps.tap(tapped, hook_point, seen.at(point))
    paths = [hook_point.module_path for hook_point in points.values()]
    latent = architecture.empty(2)
    with listening(model, list(dict.fromkeys(paths))) as calls:
        before = hooks_on(model.model)
        recorded = sample(tapped, latent, architecture.prompt(1), architecture.prompt(2), cfg=cfg)
        assert hooks_on(model.model) == before
    plain = sample(model, latent, architecture.prompt(1), architecture.prompt(2), cfg=cfg)
    assert torch.equal(recorded, plain) and plain.isfinite().all()
    assert [call[""] for call in calls] == [[0] if cfg == 1 else [1, 0]] * 2
    for point, spot in architecture.points.items():
        assert seen.grids[point] == {spot.grid}
        for step, call in enumerate(calls):
            for chunk, kind in enumerate(call[""]):
                rows = slice(2 * chunk, 2 * chunk + 2)
                own = expected(call[points[point].module_path], spot, rows, model.model.diffusion_model)
                found = seen.tokens.pop((point, ("cond", "uncond")[kind], step))
                assert torch.equal(found, own), point
    assert not seen.tokens


def first_points(architecture: Architecture) -> list[str]:
    """Hook points of the image's tokens in the first block of each kind; deeper ones mix them too much."""
    firsts = ("blocks.0", "layers.0", "refiner.0")
    return [point for point in architecture.points if point.endswith(firsts)]


# What a conditioning with reference images has besides the text states; they may have another size.
REFERENCES: dict[str, Callable[[Architecture], dict[str, Any]]] = {
    "flux": lambda a: {"reference_latents": [noise(1, 16, 5, 4), noise(1, 16, 4, 8)]},
    "flux2": lambda a: {"reference_latents": [noise(1, 128, 3, 2)]},
    "qwen-image": lambda a: {"reference_latents": [noise(1, 16, 1, 6, 8)]},
    "wan": lambda a: {
        "reference_latents": [noise(1, 16, 1, 8, 6)],
        "time_dim_concat": noise(1, 16, 2, 7, 6),
    },
    "hunyuan video": lambda a: {"ref_latent": noise(1, 16, 1, 8, 6)},
    "hidream": lambda a: {"concat_latent_image": noise(1, 16, 7, 6)},
}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(
    ("name", "references"),
    [
        *((name, False) for name in NAMES if first_points(ARCHITECTURES[name])),
        *((name, True) for name in REFERENCES),
    ],
)
def test_the_grid_is_that_of_the_latents(
    built: Any, taps: Any, resolve: Any, name: str, references: bool
) -> None:
    """Other noise in one cell of the grid moves that token most, whatever else is in the sequence."""
    architecture = ARCHITECTURES[name]
    model = built(name)
    positive = architecture.prompt(1)
    if references:
        positive[0][1].update(REFERENCES[name](architecture))
    batch = 1 if "ref_latent" in positive[0][1] else 2  # HunyuanVideo takes no batches with a reference
    *frames, height, width = architecture.latent[1:]
    for point in first_points(architecture):
        hook_point = resolve(model, point)
        grid = architecture.points[point].grid
        rows, columns = grid[-2:]
        for cell in [(0, rows - 1, 0), (len(grid) - 2, rows // 2, columns - 1)]:
            seen = []
            for strength in (0.0, 8.0):
                one = Seen()
                latent, more = architecture.empty(batch), architecture.empty(batch)
                down, right = -(-height // rows), -(-width // columns)
                box = (
                    slice(cell[1] * down, (cell[1] + 1) * down),
                    slice(cell[2] * right, (cell[2] + 1) * right),
                )
                where = (slice(None), cell[0], *box) if frames else (slice(None), *box)
                more[-1][where] = strength * noise(*more[-1][where].shape)
                tapped = taps.tap(model, hook_point, one.at(point))
                sample(tapped, latent, positive, positive, cfg=1.0, steps=1, more=more)
                seen.append(one.tokens[point, "cond", 0])
                assert one.grids[point] == {grid}
            moved = (seen[1] - seen[0]).norm(dim=-1).reshape(batch, *grid)
            strongest = torch.unravel_index(moved[-1].argmax(), grid)
            assert tuple(int(index) for index in strongest) == cell[-len(grid) :], point
            assert not moved[:-1].any()  # the other image of the batch


DIFFERENCES = {
    "sdxl": {"input_blocks.8.1": 0},
    "flux": {"double_blocks.1": 0, "double_blocks.1.txt": 1, "single_blocks.1": 0},
    "sd3": {"joint_blocks.1": 1, "joint_blocks.1.txt": 0},
    "qwen-image": {"transformer_blocks.1": 0, "transformer_blocks.1.txt": 1},
    "auraflow": {"double_layers.1": 1, "single_layers.1": 0},
    "wan": {"blocks.1": 0},
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_difference_is_that_of_one_stream(built: Any, taps: Any, resolve: Any, name: str) -> None:
    """Output minus input, though blocks write into their inputs; the number is the position of the input."""
    architecture = ARCHITECTURES[name]
    model = built(name)
    for point, position in DIFFERENCES[name].items():
        seen = Seen()
        hook_point = resolve(model, point)
        taken: list[Tensor] = []
        module = model.model.diffusion_model.get_submodule(hook_point.module_path)

        def enter(
            _module: nn.Module, args: Any, kwargs: Any, position: int = position, taken: Any = taken
        ) -> None:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            taken.append(tensors[position].clone())

        handle = module.register_forward_pre_hook(enter, with_kwargs=True)
        try:
            with listening(model, [hook_point.module_path]) as calls:
                tapped = taps.tap(model, hook_point, seen.at(point), captured="diff")
                latent, prompt = architecture.empty(2), architecture.prompt(1)
                sample(tapped, latent, prompt, prompt, cfg=1.0, steps=1)
        finally:
            handle.remove()
        output = calls[0][hook_point.module_path]
        output = output[hook_point.element] if isinstance(output, tuple) else output
        difference = output - taken[0]
        if difference.ndim == 4:
            own = difference.flatten(2).transpose(1, 2)
        else:
            words = difference.shape[1] - 12 if point.startswith("single") else 0
            own = difference[:, words:]
        assert torch.equal(seen.tokens[point, "cond", 0], own), point


@pytest.mark.parametrize("name", NAMES)
def test_a_change_reaches_the_picture_and_nothing_is_left(
    built: Any, taps: Any, resolve: Any, name: str
) -> None:
    """A change of nothing leaves the samples bit for bit; one of a single token changes them."""
    architecture = ARCHITECTURES[name]
    model = built(name)
    latent, positive, negative = architecture.empty(2), architecture.prompt(1), architecture.prompt(2)
    plain = sample(model, latent, positive, negative, cfg=7.0)
    for point in architecture.points:
        if point.endswith(".txt") or "refiner" in point or "." not in point or point.endswith(".k"):
            continue
        hook_point = resolve(model, point)

        def push(tokens: Tensor, call: Any, _run: Any) -> Tensor | None:
            change = torch.zeros_like(tokens)
            change[1, 0] = 5.0
            return change if call.role == "cond" else None

        def still(tokens: Tensor, call: Any, _run: Any) -> None:
            return None

        changed = sample(taps.tap(model, hook_point, push), latent, positive, negative, cfg=7.0)
        assert torch.equal(changed[0], plain[0]), point
        assert not torch.equal(changed[1], plain[1]), point
        same = sample(taps.tap(model, hook_point, still), latent, positive, negative, cfg=7.0)
        assert torch.equal(same, plain)
    assert hooks_on(model.model) == 0


def test_every_listed_point_can_be_tapped(built: Any, taps: Any, pack: Any) -> None:
    """All at once, in a family with both kinds of block, under their own names and their aliases."""
    hookpoints = pack("comfy_revelio.hookpoints")
    for name in ("flux", "sd3", "z-image", "hidream", "sdxl", "ssd-1b"):
        architecture = ARCHITECTURES[name]
        model = tapped = built(name)
        points = hookpoints.list(model.model.diffusion_model)
        seen = Seen()
        for point in points:
            assert all(
                hookpoints.resolve(model.model.diffusion_model, alias) == point for alias in point.aliases
            )
            tapped = taps.tap(tapped, point, seen.at(point.name))
        prompt = architecture.prompt(1)
        sample(tapped, architecture.empty(1), prompt, prompt, cfg=1.0, steps=1)
        assert {point for point, _, _ in seen.tokens} == {point.name for point in points}
        assert all(
            seen.tokens[point.name, "cond", 0].shape[-1] == point.width for point in points if point.width
        )


def test_compiled_models(built: Any, taps: Any, resolve: Any) -> None:
    """Taps on a model that another node compiles, and on one whose blocks are compiled one by one."""
    architecture = ARCHITECTURES["flux"]
    model = built("flux")
    latent, prompt = architecture.empty(2), architecture.prompt(1)
    want, seen = Seen(), Seen()
    point = resolve(model, "single_blocks.1")
    sample(taps.tap(model, point, want.at("p")), latent, prompt, prompt, cfg=1.0)
    network = model.model.diffusion_model
    originals = list(network.single_blocks)
    try:
        for number, block in enumerate(originals):
            network.single_blocks[number] = torch.compile(block, backend="eager")
        sample(model, latent, prompt, prompt, cfg=1.0)  # compiled before the tap is there
        tapped = taps.tap(model, resolve(model, "single_blocks.1"), seen.at("p"))
        sample(tapped, latent, prompt, prompt, cfg=1.0)
    finally:
        for number, block in enumerate(originals):
            network.single_blocks[number] = block
    assert seen.tokens.keys() == want.tokens.keys()
    for key in want.tokens:
        assert torch.allclose(seen.tokens[key], want.tokens[key], atol=1e-5)
    assert hooks_on(network) == 0


def test_a_mask_steers_every_frame_of_a_video(built: Any, pack: Any, taps: Any, resolve: Any) -> None:
    """One mask for all frames, on the grid of each; other tokens stay bit for bit."""
    architecture = ARCHITECTURES["wan"]
    model = built("wan")
    point = resolve(model, "blocks.0")
    width = point.width
    dictionaries, steering = pack("comfy_revelio.dictionary"), pack("comfy_revelio.steering")
    stats = dictionaries.FeatureStats(torch.full((width,), 2.0), torch.full((width,), 0.1))
    dictionary = dictionaries.Dictionary(
        torch.eye(width), torch.zeros(width), torch.eye(width), torch.zeros(width), torch.zeros(width),
        dictionaries.Activation("topk_relu", 4), provenance=dictionaries.Provenance("blocks.0"),
        extras=dictionaries.Extras(stats=stats),
    )  # fmt: skip
    mask = torch.zeros(1, 8, 6)
    mask[:, :, :2] = 1.0  # the left column of tokens
    change = steering.Intervention(dictionary, steering.Selection((3,)), 1.5, mode="add", mask=mask)
    sae = pack("comfy_revelio.host.sae_files").handle(dictionary, "video.safetensors")
    latent, positive, negative = architecture.empty(2), architecture.prompt(1), architecture.prompt(2)
    seen = []
    for subject in (model, pack("comfy_revelio.host.steering").steer(model, change, sae)):
        one = Seen()
        tapped = taps.tap(subject, point, one.at("p"))
        sample(tapped, latent, positive, negative, cfg=7.0, steps=1)
        seen.append(one)
    plain, steered = (one.tokens["p", "cond", 0].reshape(2, 3, 4, 3, width) for one in seen)
    assert torch.equal(steered[..., 1:, :], plain[..., 1:, :])
    moved = steered[..., 0, :] - plain[..., 0, :]
    assert torch.allclose(moved[..., 3], torch.tensor(3.0), atol=1e-5)
    assert not moved[..., :3].any() and not moved[..., 4:].any()
    assert torch.equal(seen[0].tokens["p", "uncond", 0], seen[1].tokens["p", "uncond", 0])
