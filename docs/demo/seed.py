"""The demo's data repository: bare git with a DVC remote beside it, holding the training script and the suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FILES = Path(__file__).resolve().parent / "repository"
AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "demo"), ("EMAIL", "demo@localhost"))
}


def make_repository(root: Path, remote: str = "") -> None:
    """Make ``repository.git`` below *root*, unless it is there. Its DVC remote is *remote* or a folder beside it."""
    bare, work = root / "repository.git", root / "repository.part"
    if bare.exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(FILES, work)
    if not remote:
        (root / "dvc-remote").mkdir(exist_ok=True)
    dvc = (sys.executable, "-m", "dvc")
    _run(work, "git", "init", "--quiet", "--initial-branch", "main")
    _run(work, *dvc, "init", "--quiet")
    _run(work, *dvc, "remote", "add", "--quiet", "--default", "storage", remote or str(root / "dvc-remote"))
    _run(work, "git", "add", ".")
    _run(work, "git", "commit", "--quiet", "-m", "Training script and suite")
    _run(root, "git", "clone", "--quiet", "--bare", str(work), str(bare) + ".part")
    Path(str(bare) + ".part").rename(bare)
    shutil.rmtree(work)


def _run(cwd: Path, *command: str) -> None:
    subprocess.run(command, cwd=cwd, check=True, env=os.environ | AUTHOR | {"DVC_NO_ANALYTICS": "true"})
