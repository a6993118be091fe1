"""What a gate decision rests on, as one JSON document with a digest, so that a later change to any of it shows.

The document names both models by the digest of their files, the holdout by its digest and the policy in full.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.core.identity import text_digest
from airflow_mlops.core.records import Record
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.evaluation.policy import Evaluation, GatePolicy


@dataclass(frozen=True)
class Evidence(Record):
    """Everything a decision rests on.

    :param evaluation: what the gate found; its own evidence fields are empty in here
    :param challenger_digest: digest of the files that were scored
    :param champion_digest: the same of the champion; empty for the first model
    """

    evaluation: Evaluation
    policy: GatePolicy
    challenger_digest: str
    champion_digest: str = ""

    def document(self) -> bytes:
        """Return the JSON that is kept: keys sorted, so that the same evidence has the same bytes."""
        return (json.dumps(self.to_dict(), sort_keys=True, indent=1, allow_nan=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of :meth:`document`."""
        return text_digest(self.document().decode())


def evidence_of(
    evaluation: Evaluation, policy: GatePolicy, challenger: ModelVersion, champion: ModelVersion | None
) -> Evidence:
    """Put together what *evaluation* rests on."""
    bare = replace(evaluation, evidence_digest="", evidence_uri="")
    return Evidence(bare, policy, challenger.digest, champion.digest if champion else "")


def read_evidence(document: bytes, digest: str) -> Evidence:
    """Return the evidence in *document* if it is the one that *digest* names.

    :raises IntegrityError: it was changed after the decision
    """
    found = text_digest(document.decode(errors="replace"))
    if found != digest:
        raise IntegrityError(
            f"The evidence was changed after the decision: its digest is {found}, the decision names {digest}. "
            "Evaluate again."
        )
    return Evidence.from_dict(json.loads(document))
