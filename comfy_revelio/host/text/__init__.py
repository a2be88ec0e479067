"""Taps on text encoders, the words of prompts, and concepts in conditionings."""
