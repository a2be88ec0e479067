"""Taps on a model: read or change the tokens in its runs and calls through hooks."""
