"""From what the registry and the platforms say to what the page shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.contract import EndpointStatus, Revision, RevisionState
from airflow_mlops.ui.cards import SHOWN, endpoint_card, model_card

KEYS = [f"airflow_mlops.drift.{key}" for key in ("verdict", "columns", "at", "rows")]
KEYS += ["airflow.dag_id", "airflow.run_id", "mlops.digest"]


def version(number: object, *aliases: str, **tags: str) -> ModelVersion:
    """Return a version of the model ``m``; underscores of tag names stand for what the tags really have."""
    drift = {f"airflow_mlops.drift.{key}": value for key, value in tags.items()}
    return ModelVersion("m", str(number), "models:/m-1", aliases=aliases, tags=drift)


def test_versions_that_matter_are_shown_newest_first():
    """Those with an alias and the newest one are shown; the others are counted."""
    known = [version(2, "champion"), version(10), version(9, "challenger"), version(1), version(2, "champion")]
    card = model_card("m", known, "http://mlflow")

    assert [shown.version for shown in card.versions] == ["10", "9", "2"]
    assert card.hidden == 1


def test_links_survive_any_name():
    """Names are quoted, so that no name leads elsewhere."""
    card = model_card("a/../b?c#d", [ModelVersion("a/../b?c#d", "1", "")], "http://mlflow")

    assert card.url == "http://mlflow/#/models/a%2F..%2Fb%3Fc%23d"
    assert card.versions[0].url == f"{card.url}/versions/1"


def test_the_last_drift_verdict_counts():
    """Of several versions that were looked at, the page shows the verdict that was reached last."""
    old = version(2, verdict="pass", at="2026-01-01T00:00:00+00:00")
    new = version(1, verdict="FAIL", at="2026-02-01T00:00:00+00:00", columns="a, b", rows="10")
    drift = model_card("m", [old, new], "").drift

    assert drift is not None
    assert (drift.version, drift.verdict, drift.columns, drift.rows) == ("1", "fail", ("a", "b"), "10")


def test_endpoints_are_shown_as_they_are():
    """Every revision is shown with its state and percent, failed ones with the reason."""
    status = EndpointStatus(
        "e",
        "http://x",
        (
            Revision("v1", "m", "1", state=RevisionState.READY, traffic=99.5),
            Revision("v2", "m", "2", state=RevisionState.FAILED, detail="out of memory"),
        ),
        previous="v1",
    )
    card = endpoint_card("local", status)

    assert [(r.revision, r.state, r.traffic, r.detail) for r in card.revisions] == [
        ("v1", "ready", 99.5, ""),
        ("v2", "failed", 0.0, "out of memory"),
    ]
    assert (card.target, card.previous) == ("local", "v1")


@given(st.lists(st.tuples(st.text(max_size=5), st.dictionaries(st.sampled_from(KEYS), st.text(max_size=20)))))
def test_no_tag_breaks_the_page(versions: list[tuple[str, dict[str, str]]]):
    """Whatever people write into tags and version numbers, a card comes out and is bounded."""
    card = model_card("m", [ModelVersion("m", number, "", tags=tags) for number, tags in versions], "http://mlflow")

    assert len(card.versions) <= SHOWN
    assert type(card).from_dict(card.to_dict()) == card
