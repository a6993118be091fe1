"""Versions of data as first-class values."""
