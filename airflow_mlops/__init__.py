"""Building blocks that make Apache Airflow a complete MLOps platform."""

__version__ = "0.1.0"
