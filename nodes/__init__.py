"""The pack's ComfyUI nodes: one thin file per family, without maths."""
