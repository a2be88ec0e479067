"""The only package that talks to ComfyUI: taps on models and text encoders, recording, steering, SAE files.

No other package imports `comfy.*` or `folder_paths`. This one contains no maths: it passes tokens to the
engine, applies what the engine returns, and leaves nothing behind on a shared module.
"""
