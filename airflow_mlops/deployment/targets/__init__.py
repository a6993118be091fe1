"""One file a serving platform."""
