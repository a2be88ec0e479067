"""Measure, with a judge, how well the bundled model follows prompts and steering."""
