"""Record sampling runs, images, prompts, text and words; keep and save the traces."""
