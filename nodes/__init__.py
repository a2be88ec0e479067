"""The pack's ComfyUI nodes: one file per family, with schemas and calls but no maths."""
