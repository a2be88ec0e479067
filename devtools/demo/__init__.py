"""`dev.py demo`: the main job of the pack on a real server, as one page in `output/`."""
