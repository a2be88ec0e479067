"""Run ComfyUI's `main.py`, and end it when the program that started it has ended.

The starter gives this process a pipe as standard input; when the pipe closes for any reason, this process
ends.
Usage: python guard.py path/to/main.py [ComfyUI's options]
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _end_with_starter() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def main() -> None:
    threading.Thread(target=_end_with_starter, daemon=True).start()
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(script))  # as if the script itself had been started
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
