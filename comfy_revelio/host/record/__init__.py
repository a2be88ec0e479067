"""Recording of sampling runs, images, prompts, text and words; the traces kept and saved."""
