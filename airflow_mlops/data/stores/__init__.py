"""One file a data store."""
