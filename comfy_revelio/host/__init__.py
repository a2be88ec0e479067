"""The only package that talks to ComfyUI: taps on models and text encoders, recording, steering, SAE files.

No other package imports `comfy.*` or `folder_paths`. The host does no maths: it passes tokens to the engine,
applies the engine's results, and leaves no changes on modules that other workflows share.
"""
