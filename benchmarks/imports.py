"""What our modules and templates cost beside Airflow's own import: CPU seconds of whole processes, side by side.

Each figure is one JSON line: name, ours, theirs, ratio, goal, unit. The processes of a pair run in turn, and the
median of their ratios counts, so that a machine whose speed drifts does not decide.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = int(os.environ.get("ROUNDS", "7"))
EMPTY_DAG = "from airflow.sdk import DAG\nwith DAG('empty', schedule=None): pass\n"


def cpu_seconds(code: str, home: str) -> float:
    """Return user and system seconds of a fresh Python that runs *code*."""
    environment = os.environ | {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(name: str, ours: str, theirs: str, goal: float, home: str) -> None:
    """Print one figure: the median of paired ratios."""
    cpu_seconds(ours, home), cpu_seconds(theirs, home)
    pairs = [(cpu_seconds(ours, home), cpu_seconds(theirs, home)) for _ in range(ROUNDS)]
    figure = {
        "name": name,
        "ours": round(statistics.median(a for a, _ in pairs), 3),
        "theirs": round(statistics.median(b for _, b in pairs), 3),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "goal": goal,
        "unit": "CPU s",
    }
    print(json.dumps(figure), flush=True)


def main() -> None:
    """Measure all operators together, then each template against an empty DAG."""
    operators = sorted(path.stem for path in (ROOT / "airflow_mlops" / "operators").glob("[!_]*.py"))
    imports = ", ".join(f"airflow_mlops.operators.{name}" for name in operators)
    with tempfile.TemporaryDirectory() as home:
        sdk = "import airflow.sdk; airflow.sdk.BaseOperator; airflow.sdk.BaseHook"
        compare("import all operators / import airflow.sdk", f"{sdk}; import {imports}", sdk, 1.10, home)
        empty = Path(home) / "empty.py"
        empty.write_text(EMPTY_DAG)
        parse = "import runpy; runpy.run_path({!r})"
        for template in sorted((ROOT / "dags").glob("*.py")):
            compare(
                f"parse {template.name} / parse an empty DAG",
                parse.format(str(template)),
                parse.format(str(empty)),
                1.30,
                home,
            )


if __name__ == "__main__":
    main()
