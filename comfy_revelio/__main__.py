"""``python -m comfy_revelio``."""

import os
import sys

from .cli.main import main

code = main()
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    # The usual exit now and then aborts one of the processes that trained together (4 of 142 runs), when
    # all its work is done; accelerate then calls the whole run failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
