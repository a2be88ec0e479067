"""The public names, and that they cost nothing until used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import comfy_revelio

REPOSITORY = Path(__file__).resolve().parents[2]


def test_import_is_light() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import comfy_revelio; "
        "assert set(comfy_revelio.__all__) <= set(dir(comfy_revelio)); "
        "comfy_revelio.RevelioError; comfy_revelio.hookpoints.list; "
        "heavy = {'torch', 'numpy', 'safetensors'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    for name in comfy_revelio.__all__:
        assert getattr(comfy_revelio, name) is not None
    assert comfy_revelio.hookpoints.list is not list
    with pytest.raises(AttributeError):
        comfy_revelio.nothing_of_that_name  # noqa: B018


def test_the_repository_is_not_on_the_import_path() -> None:
    assert str(REPOSITORY) not in sys.path
