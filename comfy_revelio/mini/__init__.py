"""Revelio Mini: its data, its training and its judge."""
