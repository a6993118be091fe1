"""One file a model registry."""
