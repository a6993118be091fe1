"""One file a platform that searches parameters by itself."""
