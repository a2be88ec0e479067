"""Write the demo's page: one HTML file with all images and metrics, and explanations of both."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ..places import ROOT
from .metrics_page import metrics_section
from .workflows import MOVING, Outcome, note_of

STYLE = Path(__file__).with_name("page.css")
WIDE = 1000
"""An image at least this wide, in pixels, gets the whole width of the page."""
NARROW = 300
"""An image at most this wide, in pixels, is not enlarged."""


@dataclass(frozen=True)
class Context:
    """What the page shows besides images and metrics."""

    date: str
    device: str
    """What the demo ran on, such as "the CPU"."""
    notes: Sequence[str] = ()
    """Sentences about missing parts, such as the Explorer if there is no browser."""


def write_page(
    output: Path, outcomes: Sequence[Outcome], report: Mapping[str, Any], context: Context
) -> Path:
    """Write `index.html` to the folder `output`, next to the images of `outcomes`; return the file."""
    sections = [(f"w{number}", *_workflow(outcome, output)) for number, outcome in enumerate(outcomes)]
    sections.append(("metrics", "Metrics", metrics_section(report, _link(output))))
    links = "\n".join(f'<a href="#{mark}">{escape(title)}</a>' for mark, title, _ in sections)
    body = "\n".join(
        f'<section id="{mark}">\n<h2>{escape(title)}</h2>\n{text}\n</section>'
        for mark, title, text in sections
    )
    file = output / "index.html"
    file.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Revelio for ComfyUI: demo</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>Revelio for ComfyUI</h1>
<p>What the demo sampled and measured on this machine: it shows which features fire inside a text-to-image
model, and turns some of them down or up. Click on an image to see it alone.</p>
<p class="soft">{escape(context.date)}, ComfyUI {escape(str(report.get("comfyui_version", "?")))} on
{escape(context.device)}, with the bundled model Revelio Mini.</p>
{"".join(f"<p>{escape(note)}</p>" for note in context.notes)}
<nav aria-label="Sections">
{links}
</nav>
</header>
<main>
{body}
</main>
<footer>
<h2>Next</h2>
<p>Open ComfyUI with the pack and the bundled model, and change these workflows yourself:</p>
<pre><code>python3 dev.py serve</code></pre>
<p>Run all workflows of the bundled model, and measure steering on more prompts:</p>
<pre><code>python3 dev.py demo --all</code></pre>
<p class="soft">All numbers that were measured now are in <a href="report.json">report.json</a>.
The <a href="{_link(output)("README.md")}">README</a> explains how to install the pack and what each node
does.</p>
</footer>
</body>
</html>
""",
        encoding="utf-8",
    )
    return file


def markdown_line(text: str) -> str:
    """Convert bold, italics and code in one paragraph of Markdown to HTML."""
    parts = escape(" ".join(text.split()), quote=False).split("`")
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = f"<code>{part}</code>"
        else:
            part = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", part)
            parts[number] = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", part)
    return "".join(parts)


def _workflow(outcome: Outcome, output: Path) -> tuple[str, str]:
    """Return title and HTML of one workflow's section."""
    heading, text = note_of(outcome.workflow)
    title = heading or outcome.workflow.stem
    figures = [_figure(file, outcome.caption(name)) for name, file in outcome.files.items()]
    took = f", {outcome.seconds:.0f} s" if outcome.seconds else ""
    parts = [f"<p>{markdown_line(text)}</p>"] if text else []
    parts.append(
        f'<p class="from">Workflow <a href="{_link(output)(f"workflows/{outcome.workflow.name}")}">'
        f"<code>{escape(outcome.workflow.stem)}</code></a>{took}</p>"
    )
    if outcome.error:
        parts.append(f'<p class="failed">This workflow failed: {escape(outcome.error)}.</p>')
    if figures:
        parts.append('<div class="images">\n' + "\n".join(figures) + "\n</div>")
    return title, "\n".join(parts)


def _figure(file: Path, caption: str) -> str:
    name, alt = escape(file.name), escape(caption)
    if file.suffix in MOVING and file.suffix != ".webp":
        media = f'<video src="{name}" controls loop muted autoplay playsinline></video>'
        return f'<figure class="wide"><div>{media}</div><figcaption>{alt}</figcaption></figure>'
    with Image.open(file) as image:
        width, height = image.size
    kind = "wide" if width >= WIDE else "small" if width <= NARROW else ""
    media = f'<img src="{name}" width="{width}" height="{height}" alt="{alt}" loading="lazy">'
    return f'<figure class="{kind}"><a href="{name}">{media}</a><figcaption>{alt}</figcaption></figure>'


class _link:
    """Makes relative links to the repository's files, which still work if page and repository are moved."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def __call__(self, name: str) -> str:
        return escape(Path(os.path.relpath(ROOT / name, self._output)).as_posix())
