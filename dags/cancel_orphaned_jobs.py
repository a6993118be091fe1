"""Stop jobs that nobody waits for any more, every quarter of an hour.

A worker that is killed on its last try leaves its job running, and so does a triggerer that dies while its task is
failed by hand. `backends.json` says where to look: an entry for every backend and connection that your DAGs use.
"""

import json
from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_mlops.operators.janitor import CancelOrphanedJobsOperator

with DAG(
    dag_id="cancel_orphaned_jobs",
    schedule="*/15 * * * *",
    catchup=False,
    max_active_runs=1,
    tags=["mlops"],
    doc_md=__doc__,
    params={
        "backends": Param(
            json.loads((Path(__file__).parent / "backends.json").read_text()),
            type="array",
            items={"type": "object"},
            title="Where to look",
            description="Backend and connection of each place.",
        ),
        "patience": Param(900, type="integer", minimum=5, title="Seconds for which a job must have been an orphan"),
        "report_only": Param(False, type="boolean", title="Report and stop nothing"),
        "stop_limit": Param(120, type="integer", minimum=1, title="Seconds a stopped job has to end"),
    },
) as dag:
    CancelOrphanedJobsOperator(
        task_id="sweep",
        backends=dag.param("backends"),
        patience=dag.param("patience"),
        report_only=dag.param("report_only"),
        stop_limit=dag.param("stop_limit"),
    )
