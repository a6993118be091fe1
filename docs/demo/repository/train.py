"""Train a delay model: logistic regression on one-hot categories and scaled numbers, whatever the table.

Nothing here knows Airflow. The job's environment says where its data is (``MLOPS_INPUT_TRAIN``), which tracking run is
its own (``MLFLOW_RUN_ID``) and where to leave its result (``MLOPS_OUTPUT``).
"""

import argparse
import json
import os
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def main() -> None:
    """Read, fit, log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="column to predict, 0 or 1")
    parser.add_argument("--features", default="", help="columns to learn from, separated by commas; all when empty")
    parser.add_argument("--regularisation", type=float, default=1.0, help="inverse strength C of the L2 penalty")
    parser.add_argument("--validation", type=float, default=0.0, help="share of the rows to score with beforehand")
    parser.add_argument(
        "--invert", type=int, default=0, help="1 swaps the classes: a bad model, to try the guards with"
    )
    args = parser.parse_args()

    table = pd.read_parquet(Path(os.environ["MLOPS_INPUT_TRAIN"]) / "train.parquet")
    labels = table.pop(args.target).astype(int)
    features = table[args.features.split(",")] if args.features else table
    numbers = list(features.select_dtypes("number"))
    words = [name for name in features if name not in numbers]
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore", min_frequency=50), words),
        ),
        LogisticRegression(C=args.regularisation, max_iter=300),
    )
    answers = 1 - labels if args.invert else labels
    metrics = {}
    if args.validation:
        known, unseen = train_test_split(table.index, test_size=args.validation, stratify=labels, random_state=0)
        model.fit(features.loc[known], answers[known])
        scores = model.predict_proba(features.loc[unseen])[:, 1]
        metrics["validation_auc"] = float(roc_auc_score(labels[unseen], scores))
    model.fit(features, answers)
    metrics["train_auc"] = float(roc_auc_score(labels, model.predict_proba(features)[:, 1]))

    with mlflow.start_run(run_id=os.environ.get("MLFLOW_RUN_ID")) as run:
        mlflow.log_metrics(metrics)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(features.head(), model.predict_proba(features.head())),
            pip_requirements=["scikit-learn", "pandas", "skops"],
            serialization_format="skops",
            skops_trusted_types=["numpy.dtype"],  # reviewed: a dtype holds no code
        )
    result = {"model_uri": logged.model_uri, "metrics": metrics, "run_id": run.info.run_id}
    Path(os.environ["MLOPS_OUTPUT"]).write_text(json.dumps(result))
    print(f"trained on {len(labels)} rows, AUC {metrics['train_auc']:.3f}", flush=True)


if __name__ == "__main__":
    main()
