"""Small real models, saved once a session in MLflow's safe formats (skops, and code), and one shared gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from airflow_mlops.testing.gateway import RunningGateway, running_gateway

MOODY = """
import os
import time

import mlflow
import pandas as pd


class Moody(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        for mood in model_input["mood"]:
            if mood == "raise":
                raise RuntimeError("secret-of-the-model")
            if mood == "exit":
                os._exit(3)
            if mood.startswith("sleep"):
                time.sleep(float(mood.split()[1]))
        return [float(len(mood)) for mood in model_input["mood"]]


mlflow.models.set_model(Moody())
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save models and give their folders. ``old`` and ``new`` classify ``x`` (double) and ``n`` (long) and disagree."""
    import mlflow.pyfunc
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression, LogisticRegression

    root = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(7)
    data = pd.DataFrame({"x": random.normal(size=200), "n": random.integers(0, 5, 200)})
    label = (data.x > 0).astype(int)
    signature = infer_signature(data, label)
    bare = {"pip_requirements": ["scikit-learn"]}
    for name, target in (("old", label), ("new", 1 - label)):
        model = LogisticRegression().fit(data, target)
        mlflow.sklearn.save_model(model, root / name, signature=signature, **bare)
    table = data.to_numpy(dtype=float)
    line = LinearRegression().fit(table, table @ [1.0, 2.0])
    mlflow.sklearn.save_model(line, root / "array", signature=infer_signature(table, line.predict(table)), **bare)
    moods = infer_signature(pd.DataFrame({"mood": ["fine"]}), [1.0])
    (root / "moody.py").write_text(MOODY)
    for name in ("moody", "foreign"):
        mlflow.pyfunc.save_model(
            root / name, python_model=str(root / "moody.py"), signature=moods, pip_requirements=["pandas"]
        )
    code = root / "foreign" / "moody.py"
    code.write_text("import package_that_nobody_has\n" + code.read_text())
    return {name: root / name for name in ("old", "new", "array", "moody", "foreign")}


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> Iterator[RunningGateway]:
    """Give a running gateway with ready revisions: ``old`` and ``new`` on ``pair``, ``v1`` on ``moody``."""
    with running_gateway(tmp_path_factory.mktemp("gateway"), arguments=["--answer-timeout", "2"]) as found:
        for endpoint, revision, model in (("pair", "old", "old"), ("pair", "new", "new"), ("moody", "v1", "moody")):
            found.begin(endpoint, revision, models[model])
        for endpoint in ("pair", "moody"):
            status = found.wait(endpoint)
            assert {item["state"] for item in status["revisions"]} == {"ready"}, status
        found.shift("moody", v1=100)
        yield found


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[httpx.Client]:
    """Give a client of the shared gateway, with all traffic of ``pair`` on ``old``."""
    gateway.shift("pair", old=100)
    with gateway.client() as found:
        yield found
