"""`dev.py demo`: run the pack's main job on a real server and show it as one page in `output/`."""
