"""One file a validation engine."""
