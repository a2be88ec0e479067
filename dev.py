#!/usr/bin/env python3
"""Do everything that developing this project takes, with nothing installed but Python.

    python3 dev.py demo [--all]          run the main job, or every workflow; result: output/index.html
    python3 dev.py test [pytest args]    check lint and types and run all tests; with arguments, pytest alone
    python3 dev.py serve [--port N]      start ComfyUI in the browser with this pack installed
    python3 dev.py bench [--quick]       run the measurements in benchmarks/
    python3 dev.py run -- COMMAND        run any command inside the environment

The first command builds the environment in `.dev/` (about 6 GB); `--fresh` before a command builds it again.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - this very check is for older versions
    sys.exit("error: Python 3.10 or newer is needed, this is {}.{}.".format(*sys.version_info[:2]))

from devtools.commandline import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], description=__doc__))
