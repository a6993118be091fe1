"""The MLOps page of the Airflow UI: what is registered, what serves, what drifted. It reads and never writes."""
