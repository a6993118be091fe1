"""Airflow hooks: a connection id in, a ready platform object out."""
