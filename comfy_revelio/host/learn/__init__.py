"""Harvest activations, train SAEs and label features in ComfyUI."""
