"""Training of the bundled models and their SAEs."""
