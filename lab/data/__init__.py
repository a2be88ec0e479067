"""Avatars with exact labels, and captions for them."""
