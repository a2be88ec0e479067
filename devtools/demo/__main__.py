"""Run the demo inside the environment: `python -m devtools.demo [--all]`."""

from __future__ import annotations

import argparse
import sys

from ..places import ROOT, find_places
from ..problem import exit_code
from .run import demo


def main() -> int:
    """Run the demo, write its files to `output/` and return the exit code."""
    line = argparse.ArgumentParser("devtools.demo", description=__doc__)
    line.add_argument("--all", action="store_true", help="run all workflows of the bundled model")
    options = line.parse_args()
    return exit_code(lambda: demo(find_places(), ROOT / "output", everything=options.all))


if __name__ == "__main__":
    sys.exit(main())
