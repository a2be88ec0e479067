"""Plain English in every text that a user or a developer reads: banned phrases, each with a better one.

Read are the documents, the help pages, the English locale file, the notes in the workflows, and the strings,
docstrings and comments of all code but the tests. Code in backticks and strings without spaces are not read.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

BANNED = [
    (r"(?<![-\w./])pictures?(?![-\w=(/])", "image"),
    (r"(?<!there )\b(is|are|was|were) no (?!(longer|more|less|better|worse|other|different)\b)", "is not a"),
    (r"(?<!there )\b(is|are) (?-i:none)\b(?! of)", "is not one, is missing"),
    (r"\b(puts?|putting|gives?|gave|giving) out\b", "outputs"),
    (r"\b(goes|go|went|going) on\b(?! top)", "resumes, continues"),
    (r"\banew\b", "again"),
    (r"\b(takes?|taken|taking|took) out\b", "removes"),
    (r"\b(puts?|putting) in\b(?= \d|[.,;:)]| (as|at|where|by|with|everywhere|all)\b)", "adds"),
    (
        r"\bplaces? (of|in) (the|a|one|another|any|this|its|your|each|every) (model|network|UNet|SAE)\b",
        "hook point",
    ),
    (r"\b(recorded|hooked|tapped) places?\b", "hook point"),
    (r"\bSAE's (own )?place\b|\bplace (the|an|this|that the) SAE\b", "hook point, layer"),
    (r"\b(one|prompts?|words?|paths?|features?) a line\b", "one per line"),
    (r"\ban own\b", "its own, a separate"),
    (
        r"\b(as|is|are) (said|told) (above|below|there|from|apart from|by whom)\b",
        "as described, is distinguished from",
    ),
    (r"\b(does|do|did) otherwise\b", "differs"),
    (r"\b(writes?|wrote) down\b", "records"),
    (r"\b(kept|keeps?) apart\b", "held out"),
    (r"\b(went|goes|go) astray\b", "diverged, failed"),
    (r"\bwhoever\b|\bnobody (wants|wanted|asks|asked|chose|meant)\b", "the caller, unless requested"),
    (
        r"\bstands? (beside|behind|in|at|under|above) (the|a|an|it|its|them|this|that)\b(?! way)",
        "is in, is next to",
    ),
    (r"\blies? (beside|behind|under) (the|a|an|it|its|them|this|that)\b", "is next to, is under"),
    (r"\bcan not\b", "cannot"),
    (r"\bgraphs? (has|have) no circles\b", "cannot contain loops"),
]

KEPT = {
    "what is in the picture",
    "picture book",
    "a picture of {}",
    "a picture",
    "a picture of something",
}
"""Whole texts that stay: what people type into ComfyUI's node search, and prompts and captions that results
depend on."""

Text = tuple[int, str]
"""The line on which a text begins, and the text."""


def rooms() -> dict[str, list[Path]]:
    """The files to read by room: a package of the engine, or a folder at the top."""
    found: dict[str, list[Path]] = {"documents": sorted(ROOT.glob("*.md"))}
    for folder in ("docs", "sae_weights", ".github"):
        found[folder] = sorted((ROOT / folder).rglob("*.md"))
    found["help pages"] = sorted((ROOT / "web" / "docs").glob("*.md"))
    found["locales"] = sorted((ROOT / "locales" / "en").glob("*.json"))
    found["workflows"] = sorted((ROOT / "workflows").glob("*.json"))
    found["explorer"] = sorted((ROOT / "web" / "explorer").rglob("*.js"))
    found["devtools"] = [ROOT / "dev.py", *sorted((ROOT / "devtools").rglob("*.py"))]
    found["devtools"] += sorted((ROOT / "benchmarks").rglob("*.py"))
    for folder in ("nodes", "lab", "scripts"):
        found[folder] = sorted((ROOT / folder).rglob("*.py"))
    found["documents"] += sorted((ROOT / "lab").glob("*.md"))
    engine = ROOT / "comfy_revelio"
    for file in sorted(engine.rglob("*.py")):
        inside = file.relative_to(engine).parts[:-1]
        room = "/".join(["engine", *inside[: 2 if inside[:1] == ("host",) else 1]])
        found.setdefault(room, []).append(file)
    return {room: files for room, files in found.items() if files}


def texts(file: Path) -> Iterator[Text]:
    """What people read in a file."""
    source = file.read_text(encoding="utf-8")
    match file.suffix:
        case ".py":
            yield from _python(source)
        case ".js":
            yield from _script(source)
        case ".json":
            yield from ((1, text) for text in _strings(json.loads(source)))
        case _:
            yield (
                1,
                re.sub(r"^```.*?^```", lambda code: "\n" * code[0].count("\n"), source, flags=re.M | re.S),
            )


def _python(source: str) -> Iterator[Text]:
    """Strings with a space in them, f-strings with their expressions left out, and comments."""
    tree = ast.parse(source)
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _script(source: str) -> Iterator[Text]:
    """Strings and comments of JavaScript."""
    for match in re.finditer(r"/\*.*?\*/|//[^\n]*|'[^'\n]*'|\"[^\"\n]*\"|`[^`]*`", source, flags=re.S):
        text = match[0] if match[0].startswith("/") else match[0][1:-1]
        yield source.count("\n", 0, match.start()) + 1, re.sub(r"^\s*\*", " ", text, flags=re.M)


def _strings(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _strings(value)


def findings(where: str, found: Iterator[Text]) -> list[str]:
    """Each banned phrase in the texts, as "file:line: phrase; better: ...". A phrase may span two lines."""
    problems = []
    for line, text in found:
        if " " not in text.strip() or text in KEPT:
            continue
        prose = re.sub(r"`[^`\n]*`|https?://\S+", lambda code: "`" * len(code[0]), text)
        lines = [number for number, words in enumerate(prose.split("\n")) for _ in words.split()]
        flat = " ".join(prose.split())
        for pattern, better in BANNED:
            for match in re.finditer(pattern, flat, flags=re.I):
                at = line + lines[flat.count(" ", 0, match.start())]
                problems.append(f"{where}:{at}: {match[0]!r}; better: {better}")
    return problems


@pytest.mark.parametrize("room", sorted(rooms()))
def test_no_banned_phrase(room: str) -> None:
    problems = [
        problem
        for file in rooms()[room]
        for problem in findings(file.relative_to(ROOT).as_posix(), texts(file))
    ]
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.md", "One.\n\nIt draws a\npicture of `a picture`.\n"),
        ("a.py", '"""One.\n\nIt draws a\npicture of `a picture`."""\n'),
        ("a.py", "x = 1\n\nPICTURES = f'{x} picture'\n# a picture\n".replace("\n#", "  #")),
        ("a.js", "let picture\n\nshow('the picture') // a picture\n"),
        ("a.json", '{"picture": "a\\n\\npicture of a picture"}'),
    ],
    ids=["Markdown", "docstring", "f-string and comment", "script", "JSON"],
)
def test_a_banned_phrase_is_found_with_its_line(tmp_path: Path, name: str, source: str) -> None:
    file = tmp_path / name
    file.write_text(source, encoding="utf-8")
    found = findings(name, texts(file))
    once = 1 if "`" in source else 2
    assert [problem.split(": ", 1)[1] for problem in found] == ["'picture'; better: image"] * once
    assert all(problem.startswith((f"{name}:3:", f"{name}:4:")) for problem in found)
