"""Training jobs: one spec, any backend, exactly one job."""
