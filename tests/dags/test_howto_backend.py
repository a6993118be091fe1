"""The how-to "add a backend" quotes a plugin that works: what it shows is the plugin's code as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from airflow_mlops.core.residency import EXTRA
from airflow_mlops.training.contract import HasLog, JobBackend, JobStatus, TrainingBackend, TrainingResult
from airflow_mlops.training.look import Notifies, Streams

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "example_plugin"
TEXT = (ROOT / "docs" / "howto" / "add-a-backend.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=[block.strip().splitlines()[0] for _, block in BLOCKS])
def test_every_block_is_the_plugin_s_own_code(language: str, block: str) -> None:
    """A block of the document stands word for word in one of the plugin's files."""
    kind = {"python": "*.py", "toml": "pyproject.toml"}[language]
    assert any(block in path.read_text() for path in PLUGIN.glob(kind))


def test_every_verb_is_shown() -> None:
    """Nothing that a backend has to have is left out: all verbs, its name and its gaps, as the contract has them."""
    shown = "".join(block for _, block in BLOCKS)
    verbs = [name for name, value in vars(JobBackend).items() if callable(value) and not name.startswith("_")]
    assert len(verbs) == 6
    assert [verb for verb in [*verbs, "from_connection"] if f"    def {verb}(" not in shown] == []
    named = {*JobBackend.__annotations__, *TrainingBackend.__annotations__}
    assert [name for name in named if not re.search(rf"^    {name}\b.* = ", shown, re.MULTILINE)] == []


def test_everything_optional_is_named() -> None:
    """The table of what is optional has each optional protocol, with its method, and each field that may be empty."""
    table = TEXT.partition("## What is optional")[2]
    for protocol in (HasLog, Streams, Notifies):
        (method,) = [name for name in vars(protocol) if callable(vars(protocol)[name]) and not name.startswith("_")]
        assert f"`{method}(" in table
        assert f"(`{protocol.__name__}`)" in table
    assert {"reason", "progress", "billed_seconds"} <= set(re.findall(r"`JobStatus\.(\w+)`", table))
    for kind, field in re.findall(r"`(JobStatus|TrainingResult)\.(\w+)`", table):
        assert field in {"JobStatus": JobStatus, "TrainingResult": TrainingResult}[kind].__dataclass_fields__
    assert f"extra `{EXTRA}`" in table


def test_the_files_it_points_to_are_there() -> None:
    """Links and paths lead somewhere, and the entry point to a class of the plugin."""
    paths = [ROOT / "docs" / "howto" / path for path in re.findall(r"\]\(([^)#]+)\)", TEXT)]
    paths += [ROOT / path for path in re.findall(r"`(tests/[\w/.]+)`", TEXT)]
    assert [path for path in paths if not path.exists()] == []
    points = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    module, _, name = points["airflow_mlops.training_backends"]["nohup"].partition(":")
    assert f"class {name}:" in (PLUGIN / f"{module}.py").read_text()
