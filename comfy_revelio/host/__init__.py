"""The room that talks to ComfyUI: taps on a model or a text encoder, recording, steering, SAE files.

Nothing outside this package imports `comfy.*` or `folder_paths`. It holds no policy and no maths: it
brings tokens to the engine, takes tokens back, and leaves nothing behind on a shared module.
"""
