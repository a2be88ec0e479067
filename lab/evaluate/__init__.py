"""How well the bundled models follow prompts and steering, counted by a judge."""
