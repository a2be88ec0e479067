"""Text encoders: taps on their layers, the tokens and words of prompts, concepts in conditionings."""
