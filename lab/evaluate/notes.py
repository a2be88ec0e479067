"""Store what an evaluation has measured so far, so that an interrupted evaluation resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfy_revelio.host.mini import config


class Notes:
    """Measured results by name, stored in a file or, if `file` is None, only in memory.

    The file is rewritten after each result. Results in an existing file are used only if they were measured
    on the same weights.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.found: dict[str, Any] = {}
        self._of = "" if file is None else _weights()
        if file is not None and file.is_file():
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
                self.found = dict(kept["found"]) if kept["of"] == self._of else {}
            except (ValueError, KeyError, TypeError):
                pass  # incomplete, or not a file of notes: measure again

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the result called `name`; call `measure` if there is none yet. Results must be JSON-able."""
        if name not in self.found:
            self.found[name] = measure()
            self._save()
        return self.found[name]

    def _save(self) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_name(f"{self.file.name}.part")
        part.write_text(json.dumps({"of": self._of, "found": self.found}), encoding="utf-8")
        os.replace(part, self.file)


def _weights() -> str:
    """Return a digest of all bundled weights."""
    digest = hashlib.sha256()
    for file in sorted(config.WEIGHTS_DIR.parent.rglob("*.safetensors")):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
