"""Pages for developers name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKING = sorted(
    [*ROOT.glob("*.md"), *(f for d in ("docs", "lab", "sae_weights") for f in (ROOT / d).rglob("*.md"))]
)
NAMING = [
    ROOT / name
    for name in ("CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", "ARCHITECTURE.md", "docs/decisions.md")
]
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]+\b|\*|\{")
"""NAME, CODE and the like, which stand for a file of the reader's own."""


def prose(file: Path) -> str:
    """The text without blocks of code."""
    return re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("file", LINKING, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_inside_the_repository_lead_somewhere(file: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", prose(file))
    assert [target for target in targets if not (file.parent / target).exists()] == []


def test_files_of_the_drawings_exist() -> None:
    """The steps in ARCHITECTURE.md, and its tree: a name belongs to the folders indented less above it."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    steps = re.findall(r"^ ?\d+ +((?:comfy_revelio|nodes)/[\w./]+)", text, flags=re.M)
    folders: list[tuple[int, str]] = []
    tree = []
    for line in text.partition("## The tree")[2].split("```")[1].strip().splitlines():
        for name in re.match(r" *((?:[\w.]+/?(?:, )?)+)", line)[1].split(", "):  # type: ignore[index]
            depth = len(line) - len(line.lstrip())
            folders = [folder for folder in folders if folder[0] < depth]
            tree.append("".join(folder for _, folder in folders) + name)
        if name.endswith("/"):
            folders.append((depth, name))
    assert len(steps) > 20 and len(tree) > 35
    assert [path for path in (*steps, *tree) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("file", NAMING, ids=lambda file: file.name)
def test_paths_in_the_text_exist(file: Path) -> None:
    """Those that begin with a folder of the repository, here or in the engine."""
    folders = "|".join(path.name for parent in (ROOT, ROOT / "comfy_revelio") for path in parent.iterdir())
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(file))
    assert named, "no path is named"
    paths = [path for path in named if not PLACEHOLDER.search(path)]
    missing = [
        path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "comfy_revelio"))
    ]
    assert missing == []
