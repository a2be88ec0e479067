"""Tools for `dev.py` and the tests: the environment, the ComfyUI server, its client, and the demo."""
