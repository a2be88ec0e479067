"""Loads the bundled models."""
