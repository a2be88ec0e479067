"""The real ComfyUI in this process, the pack loaded into it as ComfyUI does, and small models to run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .architectures import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
PACK = "revelio_under_contract"  # a private name, as ComfyUI gives to packs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.contract)


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's folder, first on the import path so that its `nodes` is found, set to the CPU."""
    root = Path(os.environ.get("COMFYUI_PATH", ROOT / ".dev" / "comfyui"))
    if not (root / "comfy" / "sd.py").is_file():
        pytest.fail(
            "COMFYUI_PATH does not name a ComfyUI folder; run the tests through `python3 dev.py test`."
        )
    sys.path.insert(0, str(root))
    cli_args = importlib.import_module("comfy.cli_args")
    cli_args.args.cpu = True
    cli_args.args.base_directory = str(tmp_path_factory.mktemp("comfyui"))
    return root


@pytest.fixture(scope="session")
def pack(comfyui: Path) -> Callable[[str], ModuleType]:
    """Imports a module of the pack by its path inside it: pack("nodes.load")."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
    return lambda name="": importlib.import_module(f"{PACK}.{name}" if name else PACK)


@pytest.fixture(scope="session")
def mini(pack: Callable[[str], ModuleType]) -> SimpleNamespace:
    """The bundled model's architecture with random weights: .model, .clip, .vae."""
    model, clip, vae = pack("comfy_revelio.host.mini.model").build_untrained()
    return SimpleNamespace(model=model, clip=clip, vae=vae)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that ran a model, whatever happened in it: no hook on any of its modules."""
    yield
    if "mini" in request.fixturenames:
        mini = request.getfixturevalue("mini")
        assert hooks_on(mini.model.model) == 0
        assert hooks_on(mini.clip.patcher.model) == 0


def hooks_on(module: nn.Module) -> int:
    """Forward and forward-pre hooks on the module and everything in it."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.fixture
def sae(pack: Callable[[str], ModuleType], mini: SimpleNamespace) -> Callable[..., Any]:
    """Makes an SAE with random directions and known statistics, for a place in the mini model."""
    dictionary_module = pack("comfy_revelio.dictionary")
    files = pack("comfy_revelio.host.sae_files")

    def make(
        hook_point: str = "middle_block.1",
        *,
        width: int = 192,
        n: int = 96,
        concepts: Any = None,
        **options: Any,
    ) -> Any:
        generator = torch.Generator().manual_seed(7)
        directions = nn.functional.normalize(torch.randn(n, width, generator=generator), dim=1)
        maps = torch.ones(n, 8, 8)
        stats = dictionary_module.FeatureStats(torch.full((n,), 2.0), torch.full((n,), 0.1), maps)
        dictionary = dictionary_module.Dictionary(
            directions.clone(),
            torch.zeros(n),
            directions.clone(),
            torch.zeros(width),
            torch.zeros(width),
            dictionary_module.Activation("topk_relu", 8),
            provenance=dictionary_module.Provenance(hook_point, **options),
            extras=dictionary_module.Extras(stats=stats, labels={"glasses": [3, 5]}, concepts=concepts or {}),
        )
        return files.handle(dictionary, "test.safetensors")

    return make


@pytest.fixture(scope="session")
def prompts(mini: SimpleNamespace) -> Callable[[str], list[Any]]:
    """Conditioning of a text, as CLIPTextEncode makes it."""
    return lambda text: mini.clip.encode_from_tokens_scheduled(mini.clip.tokenize(text))


@pytest.fixture(scope="session")
def sample(mini: SimpleNamespace, prompts: Callable[[str], list[Any]]) -> Callable[..., Tensor]:
    """Samples as KSampler does: latents [batch, 4, height, width]."""

    def run(
        model: Any,
        *,
        seed: int = 1,
        steps: int = 4,
        cfg: float = 3.0,
        sampler: str = "euler",
        scheduler: str = "normal",
        positive: Any = None,
        negative: Any = None,
        size: tuple[int, int] = (8, 8),
        batch: int = 1,
        **options: Any,
    ) -> Tensor:
        import comfy.sample

        latent = torch.zeros(batch, 4, *size)
        return comfy.sample.sample(
            model,
            comfy.sample.prepare_noise(latent, seed),
            steps,
            cfg,
            sampler,
            scheduler,
            positive or prompts("a portrait with glasses"),
            negative or prompts(""),
            latent,
            disable_pbar=True,
            seed=seed,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def built(comfyui: Any) -> Callable[[str], Any]:
    """The model of an architecture, built once."""
    models: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in models:
            models[name] = ARCHITECTURES[name].build()
        return models[name]

    return get


@pytest.fixture
def taps(pack: Any) -> Any:
    return pack("comfy_revelio.host.taps.model")


@pytest.fixture
def resolve(pack: Any) -> Callable[[Any, str], Any]:
    hookpoints = pack("comfy_revelio.hookpoints")
    return lambda model, name: hookpoints.resolve(model.model.diffusion_model, name)
