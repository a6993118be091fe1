"""The embedded gateway behind the local target: for a laptop and CI, not for production."""
