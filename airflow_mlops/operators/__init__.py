"""Airflow operators: thin, flat and templated. What they do is in the engines."""
