"""Read files that may be malicious, and write files atomically."""
