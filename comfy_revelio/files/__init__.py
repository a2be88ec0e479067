"""Files, read with suspicion and written atomically."""
