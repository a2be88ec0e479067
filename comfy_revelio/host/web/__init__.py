"""Serve the pack's routes and files to the browser."""
