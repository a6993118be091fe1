"""Run, resume or stop the demo: the whole loop on the flights of 2013. Used by `make demo`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from airflow_api import Airflow
from seed import make_repository
from stack import REPOSITORY, Stack, copy_templates, write_project
from story import MONITOR, MONTHS, PUBLISH, TRAIN, Story
from table import render


def main() -> None:
    """Parse the command line and act."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".demo", help="folder of everything the demo makes")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="start the servers and tell the story, or go on with it")
    run.add_argument("--months", type=int, default=5, help=f"months of 2013 to live through, 1 to {len(MONTHS)}")
    run.add_argument("--fresh", action="store_true", help="delete what an earlier run made and start afresh")
    commands.add_parser("stop", help="end the servers; what they made stays")
    args = parser.parse_args()
    root = args.root.resolve()
    if args.command == "stop":
        stop(root)
    elif not 1 <= args.months <= len(MONTHS):
        parser.error(f"--months must be between 1 and {len(MONTHS)}, got {args.months}")
    else:
        demo(root, args.months, fresh=args.fresh)


def stop(root: Path) -> None:
    """End the servers."""
    ended = Stack(root).stop() if (root / "settings.json").exists() else []
    print("ended: " + ", ".join(ended) if ended else "nothing was running")


def demo(root: Path, months: int, *, fresh: bool) -> None:
    """Start, tell, show."""
    begin = time.monotonic()

    def say(text: str) -> None:
        lead = "\n" if text.startswith("\n") else ""
        print(f"{lead}{time.monotonic() - begin:6.0f} s  {text.lstrip()}", flush=True)

    if fresh and root.exists():
        stop(root)
        shutil.rmtree(root)
    stack = Stack(root)
    say(f"starting Airflow, MLflow and the gateway in {root}")
    make_repository(root)
    copy_templates(root)
    write_project(root)
    stack.start(say)
    airflow = Airflow(stack.airflow_url, "admin", stack.password)
    airflow.wait_for_dags({PUBLISH, TRAIN, MONITOR})
    started = time.monotonic() - begin
    story = Story(root, airflow, stack.gateway_url, say=say)
    story.tell(months)
    print(f"\n{render(story.rows)}\n")
    spent = [("start", started), *((row.month, row.seconds) for row in story.rows)]
    print("Where the time went: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in spent))
    print(
        f"\nAirflow  {stack.airflow_url}  (admin / {stack.password}; the page MLOps is in its navigation)"
        f"\nMLflow   {stack.mlflow_url}"
        f"\nGateway  {stack.gateway_url}/v1/endpoints"
        "\n\n`make demo-stop` ends them, `make demo` goes on, `make demo FRESH=1` starts afresh."
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
