"""An Airflow Connection in, an authenticated client out. Nothing else lives here."""
