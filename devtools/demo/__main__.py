"""Inside the environment: `python -m devtools.demo [--all]`."""

from __future__ import annotations

import argparse
import sys

from ..places import ROOT, find_places
from ..problem import exit_code
from .run import demo


def main() -> int:
    """Run the demo into `output/`; returns the exit code."""
    line = argparse.ArgumentParser("devtools.demo", description=__doc__)
    line.add_argument("--all", action="store_true", help="all workflows of the bundled model")
    options = line.parse_args()
    return exit_code(lambda: demo(find_places(), ROOT / "output", everything=options.all))


if __name__ == "__main__":
    sys.exit(main())
