"""Registered models: versions, aliases, and who may move them."""
