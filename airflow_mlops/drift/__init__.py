"""Drift: has the data changed since the model learned from it, by how much, and does it matter."""
