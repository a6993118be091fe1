"""Endpoints: which revision of which model serves how much of the traffic."""
