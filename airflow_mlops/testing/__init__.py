"""Contract suites and real or strict test parts, for this package and for yours."""
