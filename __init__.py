"""ComfyUI entry point of the pack, light on purpose: all else is imported when ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():  # type: ignore[no-untyped-def]  # ComfyUI's name and signature
    """Called by ComfyUI once, after it has read this file."""
    import logging

    try:
        from .nodes.extension import RevelioExtension

        return RevelioExtension()
    except Exception:
        # ComfyUI reports a failing entry point in one line without its place; the place is what helps.
        logging.exception("Revelio could not load its nodes.")
        raise
