"""How many challengers a champion has met, so that the gate can spend less of its alpha on each further one.

The count is a tag of the registered model and starts anew with every champion. The same decision, for example by a
retry, is counted once.
"""

from __future__ import annotations

import json

from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.lock import alias_lock

ATTEMPTS = "mlops.gate.attempts"
REMEMBERED = 200


def count_attempt(client: MLflowClient, model: str, *, champion: str, decision: str) -> int:
    """Return the number, from 1, that *decision* has among those about *champion*, and keep it.

    :param decision: a word that is the same for the same challenger, holdout and policy
    """
    with alias_lock(client, model, "gate"):
        tags = {tag["key"]: tag["value"] for tag in client.model(model).get("tags", ())}
        ledger, attempt = counted(tags.get(ATTEMPTS, ""), champion, decision)
        client.set_model_tag(model, ATTEMPTS, ledger)
    return attempt


def counted(ledger: str, champion: str, decision: str) -> tuple[str, int]:
    """Return the ledger with *decision* in it, and its number. An unreadable ledger is an error, not a new start."""
    kept = json.loads(ledger) if ledger else {}
    if kept.get("champion") != champion:
        kept = {"champion": champion, "earlier": 0, "decisions": []}
    earlier, decisions = int(kept["earlier"]), list(kept["decisions"])
    if decision not in decisions:
        decisions.append(decision)
    attempt = earlier + decisions.index(decision) + 1
    forgotten = max(0, len(decisions) - REMEMBERED)
    kept = {"champion": champion, "earlier": earlier + forgotten, "decisions": decisions[forgotten:]}
    return json.dumps(kept), attempt
