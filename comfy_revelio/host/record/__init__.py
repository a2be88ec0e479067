"""Recording: of sampling runs, images, prompts, text and words."""
