"""Where current data comes from: one file a format."""
