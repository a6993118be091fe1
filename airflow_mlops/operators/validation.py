"""Let data pass only when its suite says so. Thin: the work is in the validation engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.core.entrypoints import VALIDATORS, load_plugin
from airflow_mlops.core.errors import GateFailedError, InvalidSpecError
from airflow_mlops.hooks.dvc import DvcHook
from airflow_mlops.operators.base import MlopsOperator
from airflow_mlops.validation.gatekeeper import Gate, keep_gate
from airflow_mlops.validation.suite import suite_of_text

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["ValidateDataOperator"]


class ValidateDataOperator(MlopsOperator):
    """Check data against a suite of Great Expectations. Returns the ``ValidationReport`` as a dict.

    Its ``data`` is the data that may go on. A check that cannot be computed is never a pass: a missing column ends
    the task for good, a fault of the engine is tried again. Bad data is not.

    :param data: path of a parquet or CSV file or folder, or the dict that ``DvcMaterialiseOperator`` returned
    :param file: file or folder below that path
    :param suite: JSON file of the suite: on this machine, or in the git repository when *dvc_conn_id* is given
    :param suite_rev: its revision; by default the commit of the data, else the newest one
    :param engine: installed validator: ``great_expectations``, or ``sql`` (same results without its slow import)
    :param on_failure: when a critical check fails: ``fail`` the task, ``quarantine`` the bad rows and go on with the
        rest if it is good, ``warn`` and go on with all, or ``skip`` what follows
    :param min_expectations: number of checks the suite must have at least
    :param max_bad_share: share of bad rows (0 to 1) above which a quarantine fails the task all the same
    :param quarantine_dir: folder for ``passed.parquet`` and ``quarantine.parquet``; default ``<data>.checked/...``
    :param report_dir: folder for the whole report as JSON; by default it is not kept
    :param dvc_conn_id: connection of the git repository that holds the suite
    :raises GateFailedError: the data broke a critical check; the decision names all that failed
    """

    template_fields = (
        "data", "file", "suite", "suite_rev", "engine", "on_failure", "min_expectations", "max_bad_share",
        "quarantine_dir", "report_dir", "dvc_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        data: str | Mapping[str, Any],
        suite: str,
        file: str | None = None,
        suite_rev: str | None = None,
        engine: str = "great_expectations",
        on_failure: str = "fail",
        min_expectations: int = 1,
        max_bad_share: float = 0.05,
        quarantine_dir: str | None = None,
        report_dir: str | None = None,
        dvc_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data, self.file, self.suite, self.suite_rev = data, file, suite, suite_rev
        self.engine, self.on_failure = engine, on_failure
        self.min_expectations, self.max_bad_share = min_expectations, max_bad_share
        self.quarantine_dir, self.report_dir, self.dvc_conn_id = quarantine_dir, report_dir, dvc_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        """Check the data and act on the decision."""
        root = _root(self.data)
        beside = root.parent / f"{root.name}.checked" / (self.file or "all").replace("/", "-")
        gate = Gate(
            on_failure=self.on_failure,
            min_expectations=int(self.min_expectations),
            max_bad_share=float(self.max_bad_share),
            quarantine_dir=Path(self.quarantine_dir) if self.quarantine_dir else beside,
            report_dir=Path(self.report_dir) if self.report_dir else None,
        )
        validator = load_plugin(VALIDATORS, self.engine)()
        report, decision = keep_gate(validator, _below(root, self.file), self._suite(), gate)
        subject = f"Suite {report.suite!r} on {report.data!r}"
        if decision.passed:
            return report.to_dict()
        if self.on_failure == "warn":
            self.log.warning("%s: %s", subject, decision.summary())
            return report.to_dict()
        if self.on_failure == "skip":
            raise AirflowSkipException(f"{subject}: {decision.summary()}")
        raise GateFailedError(decision, subject)

    def _suite(self) -> dict[str, Any]:
        if not self.dvc_conn_id:
            path = Path(self.suite)
            if not path.is_file():
                raise InvalidSpecError(f"There is no suite at {self.suite!r}. Give dvc_conn_id if it is kept in git.")
            return suite_of_text(path.read_text(encoding="utf-8"), self.suite)
        store = DvcHook(self.dvc_conn_id).get_store()
        return suite_of_text(store.read_file(self.suite, self.suite_rev or _commit(self.data) or "HEAD"), self.suite)


def _root(data: str | Mapping[str, Any]) -> Path:
    """Return the path that *data* is or holds."""
    found = data.get("path") if isinstance(data, Mapping) else data
    if not isinstance(found, str) or not found:
        raise InvalidSpecError(f"data has to be a path or a dict with a 'path', got {data!r}.")
    return Path(found)


def _below(root: Path, file: str | None) -> Path:
    path = root / file if file else root
    if not path.resolve().is_relative_to(root.resolve()):
        raise InvalidSpecError(f"file {file!r} is not below {str(root)!r}. Give a path inside of it.")
    return path


def _commit(data: str | Mapping[str, Any]) -> str:
    version = data.get("version") if isinstance(data, Mapping) else None
    return str(version.get("commit") or "") if isinstance(version, Mapping) else ""
