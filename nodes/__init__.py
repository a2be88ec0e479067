"""The pack's ComfyUI nodes: one file per family, thin, without maths."""
