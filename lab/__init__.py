"""What makes and measures the bundled models. It may import the engine; the engine never imports it."""
