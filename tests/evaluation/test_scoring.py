"""Models are scored from checked files without unpickling, and the holdout is what it claims to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.digests import file_digest
from airflow_mlops.core.errors import IntegrityError, InvalidSpecError, NotFoundError
from airflow_mlops.evaluation.holdout import data_digest, read_holdout
from airflow_mlops.evaluation.scoring import TRUSTED_TYPES, load_predict, score


def frame(rows: int = 300) -> pd.DataFrame:
    """Return rows with a number, a word and an answer."""
    rng = np.random.default_rng(1)
    number, word = rng.normal(size=rows), rng.choice(["a", "b"], rows)
    return pd.DataFrame({"number": number, "word": word, "late": (number + (word == "a") > 0.4).astype(int)})


def pipeline(kind: str) -> Any:
    """Return an unfitted pipeline with an encoder in front of a classifier."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

    encoder, model = {
        "logistic": (OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        "boosting": (OrdinalEncoder(), HistGradientBoostingClassifier(max_iter=5)),
        "forest": (OrdinalEncoder(), RandomForestClassifier(5)),
    }[kind]
    return Pipeline(
        [("columns", ColumnTransformer([("word", encoder, ["word"])], remainder="passthrough")), ("m", model)]
    )


@pytest.mark.parametrize("kind", ["logistic", "boosting", "forest"])
def test_a_skops_pipeline_is_scored_without_mlflow(kind: str, tmp_path: Path) -> None:
    """Pipelines logged as the guide says give the probability of the positive class, from skops alone."""
    import mlflow.sklearn

    rows = frame()
    model = pipeline(kind).fit(rows[["number", "word"]], rows["late"])
    mlflow.sklearn.save_model(
        model,
        tmp_path / "model",
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        pip_requirements=["scikit-learn", "skops"],
    )
    found = score(tmp_path / "model", rows[["number", "word"]])
    assert found == pytest.approx(model.predict_proba(rows[["number", "word"]])[:, 1])


def test_a_pickled_model_is_refused_unless_allowed(tmp_path: Path) -> None:
    """A pickle is not loaded by default, and gives the same scores when the task allows it."""
    import mlflow.sklearn

    rows = frame()
    model = pipeline("logistic").fit(rows[["number", "word"]], rows["late"])
    mlflow.sklearn.save_model(
        model, tmp_path / "model", serialization_format="pickle", pip_requirements=["scikit-learn"]
    )
    with pytest.raises(InvalidSpecError, match="allow_pickle"):
        load_predict(tmp_path / "model")
    found = score(tmp_path / "model", rows[["number", "word"]], allow_pickle=True)
    assert found == pytest.approx(model.predict_proba(rows[["number", "word"]])[:, 1])


def test_a_model_cannot_extend_the_list_of_trusted_types(tmp_path: Path) -> None:
    """A type that the model's own description trusts and we do not is refused by name."""
    import skops.io
    import yaml
    from sklearn.preprocessing import FunctionTransformer

    (tmp_path / "model").mkdir()
    skops.io.dump(FunctionTransformer(func=np.linalg.norm), tmp_path / "model" / "model.skops")
    wanted = skops.io.get_untrusted_types(file=tmp_path / "model" / "model.skops")
    sklearn = {"serialization_format": "skops", "pickled_model": "model.skops", "skops_trusted_types": wanted}
    (tmp_path / "model" / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": sklearn}}))
    assert wanted
    with pytest.raises(InvalidSpecError, match=wanted[0]):
        load_predict(tmp_path / "model")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    """A holdout that lacks a column the model needs is refused with the model's own words."""
    import mlflow.sklearn

    rows = frame()
    model = pipeline("logistic").fit(rows[["number", "word"]], rows["late"])
    mlflow.sklearn.save_model(
        model,
        tmp_path / "model",
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        pip_requirements=["scikit-learn", "skops"],
    )
    with pytest.raises(InvalidSpecError, match="word"):
        score(tmp_path / "model", rows[["number"]])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """A folder that holds no MLflow model is refused."""
    with pytest.raises(InvalidSpecError, match="MLmodel"):
        load_predict(tmp_path)


def test_the_labels_never_reach_the_model(tmp_path: Path) -> None:
    """The target is not among the features, asked for or not."""
    frame().to_parquet(tmp_path / "holdout.parquet")
    found = read_holdout(tmp_path / "holdout.parquet", "late")
    assert list(found.features.columns) == ["number", "word"]
    assert found.labels.tolist() == frame()["late"].tolist()
    with pytest.raises(InvalidSpecError, match="shown the answer"):
        read_holdout(tmp_path / "holdout.parquet", "late", features=["number", "late"])


def test_the_holdout_is_the_one_that_was_meant(tmp_path: Path) -> None:
    """A file's digest is the one DVC gives it; another file under the same name is refused."""
    path = tmp_path / "holdout.parquet"
    frame().to_parquet(path)
    digest = file_digest(path, "md5")
    assert read_holdout(path, "late", digest=digest).digest == digest == data_digest(path)
    assert read_holdout(path, "late", digest="md5:0123.dir").digest == "md5:0123.dir"
    frame(301).to_parquet(path)
    with pytest.raises(IntegrityError, match="not used"):
        read_holdout(path, "late", digest=digest)


def test_words_become_labels_by_name(tmp_path: Path) -> None:
    """With positive_label, any two words are labels; CSV files and folders are read as well."""
    frame().to_csv(tmp_path / "holdout.csv", index=False)
    found = read_holdout(tmp_path / "holdout.csv", "word", features=["number"], positive_label="a")
    assert found.labels.sum() == (frame()["word"] == "a").sum()
    (tmp_path / "parts").mkdir()
    frame().to_parquet(tmp_path / "parts" / "0.parquet")
    assert len(read_holdout(tmp_path / "parts", "late").labels) == 300


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """An absent file or column is answered with its name, and with the column that was meant."""
    with pytest.raises(NotFoundError, match="nowhere"):
        read_holdout(tmp_path / "nowhere.parquet", "late")
    frame().to_parquet(tmp_path / "holdout.parquet")
    with pytest.raises(NotFoundError, match="did you mean 'late'"):
        read_holdout(tmp_path / "holdout.parquet", "latte")
