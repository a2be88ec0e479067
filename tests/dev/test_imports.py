"""The environment itself: the libraries whose versions depend on each other can be imported together."""

from __future__ import annotations

import importlib


def test_training_libraries_import() -> None:
    for module, name in (
        ("transformers", "CLIPTextModel"),
        ("diffusers", "UNet2DConditionModel"),
        ("diffusers", "AutoencoderKL"),
        ("torchvision.ops", "nms"),
    ):
        assert hasattr(importlib.import_module(module), name)
