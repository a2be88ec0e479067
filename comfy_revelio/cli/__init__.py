"""The command line, `python -m comfy_revelio`."""
