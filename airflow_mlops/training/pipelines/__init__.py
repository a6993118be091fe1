"""Platforms that run compiled pipelines."""
