"""Learning in ComfyUI: harvests, training, labels."""
