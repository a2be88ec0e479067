"""What `dev.py` and the tests use: the environment, the ComfyUI server, its client and the demo."""
