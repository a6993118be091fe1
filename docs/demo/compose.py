"""The demo on Docker Compose: prepare what the services share, then tell the same story on them.

Used by ``docker-compose.yaml`` only. Everything shared is below ``/srv/mlops``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path("/srv/mlops")
BUCKETS = ("mlflow", "dvc")


def prepare() -> None:
    """Make buckets, database tables, the data repository and the project's DAGs. Running it again changes nothing."""
    import boto3
    from seed import make_repository
    from stack import copy_templates, write_project

    storage = boto3.client("s3")
    for bucket in BUCKETS:
        storage.create_bucket(Bucket=bucket)
    subprocess.run(["airflow", "db", "migrate"], check=True)
    make_repository(ROOT, remote="s3://dvc/data")
    copy_templates(ROOT)
    write_project(ROOT)


def run() -> None:
    """Tell the story on the running services."""
    from airflow_api import Airflow
    from story import Story
    from table import render

    airflow = Airflow(os.environ["MLOPS_DEMO_AIRFLOW_URL"], "admin", os.environ["MLOPS_DEMO_AIRFLOW_PASSWORD"])
    gateway = os.environ["MLOPS_DEMO_GATEWAY_URL"], os.environ["MLOPS_DEMO_GATEWAY_TOKEN"]
    story = Story(ROOT, airflow, *gateway, say=print)
    story.tell(int(os.environ["MLOPS_DEMO_MONTHS"]))
    print(render(story.rows))


if __name__ == "__main__":
    {"prepare": prepare, "run": run}[sys.argv[1]]()
