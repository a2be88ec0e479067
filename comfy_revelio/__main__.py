"""Run the command line: ``python -m comfy_revelio``."""

import os
import sys

from .cli.main import main

code = main()
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    # After distributed training, the normal exit occasionally aborts one of the processes (4 of 142 runs)
    # although its work is done; accelerate then reports the whole run as failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
