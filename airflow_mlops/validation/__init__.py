"""Checks that stand between data and everything that trusts it."""
