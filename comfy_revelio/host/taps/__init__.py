"""Taps on a model: runs, calls, hooks, and the tokens in them."""
