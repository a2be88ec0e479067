"""``python -m comfy_revelio``."""

import sys

from .cli import main

sys.exit(main())
