"""One file a training platform."""
