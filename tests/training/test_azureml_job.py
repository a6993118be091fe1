"""From a spec to a job of Azure Machine Learning, and what a real shell makes of its command."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.azureml.schema import JOB, check
from airflow_mlops.training.backends.azureml_job import (
    AzureMLOptions,
    command_job,
    environment_of,
    read_options,
    refuse_sizes,
)
from airflow_mlops.training.backends.azureml_start import LIMIT, MPI, PYTORCH, TENSORFLOW, address, quoted, start_line
from airflow_mlops.training.contract import Resources, TrainingSpec

OWNER = TaskIdentity("dag", "run", "train")
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
SPEC = TrainingSpec(("python", "train.py"), image="train:1")
VAULT = "vault.azure.net"


def body(spec: TrainingSpec = SPEC, name: str = "aml-1", **options: Any) -> dict[str, Any]:
    """Return the properties of a job, checked against the schema."""
    found = command_job(spec, name, OWNER, AzureMLOptions(**options), workspace=WORKSPACE, vault=VAULT)
    check(JOB, {**found, "environmentId": "e"})
    return found


def run(spec: TrainingSpec, folder: Path, env: dict[str, str] | None = None, distribution: str = PYTORCH) -> str:
    """Run the line that starts a job, as the platform does, and return what it printed."""
    line = start_line(spec, distribution=distribution, mounted=False, vault=VAULT)
    env = {"PATH": os.environ["PATH"], "MLOPS_NODE_RANK": "0", **(env or {})}
    done = subprocess.run(["sh", "-c", line], env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_word_reaches_the_program_as_it_is(word: str) -> None:
    """Whatever is in an argument, the shell gives it to the program unchanged, and Azure finds nothing to replace."""
    assert "${{" not in quoted(word)
    done = subprocess.run(["sh", "-c", f"printf %s {quoted(word)}"], capture_output=True, check=True)
    assert done.stdout == word.encode()


@pytest.mark.parametrize("word", ["${{inputs.data}}", "a'${{x}}'b", "$(id) `id` $HOME", "a\nb; exit 3", "", "-n"])
def test_words_that_shells_and_azure_would_read(word: str, tmp_path: Path) -> None:
    """Expressions of Azure and of the shell are plain text."""
    spec = replace(SPEC, command=("sh", "-c", 'printf "<%s>" "$1"', "x"), args=(word,))
    assert run(spec, tmp_path) == f"<{word}>"
    assert "${{" not in quoted(word)


def test_a_zero_byte_is_refused() -> None:
    """No program can be given one, and the message says so."""
    with pytest.raises(InvalidSpecError, match="zero byte"):
        quoted("a\0b")


def test_a_command_that_linux_cannot_start_is_refused() -> None:
    """The message has the size and the limit; one that just fits is started."""
    spec = replace(SPEC, args=("x" * LIMIT,))
    with pytest.raises(InvalidSpecError, match=str(LIMIT)):
        body(spec)
    line = start_line(SPEC, distribution=PYTORCH, mounted=False, vault=VAULT)
    fits = replace(SPEC, command=("true",), args=("x" * (LIMIT - len(line)),))
    long = start_line(fits, distribution=PYTORCH, mounted=False, vault=VAULT)
    assert len(long) > LIMIT - 100
    assert subprocess.run(["sh", "-c", long], check=False, cwd="/tmp").returncode == 0


def test_the_report_is_there_before_the_program(tmp_path: Path) -> None:
    """A program that reports nothing leaves an empty report, so that a missing one is a lost one."""
    run(replace(SPEC, command=("true",)), tmp_path)
    assert json.loads((tmp_path / "outputs/mlops_output.json").read_text()) == {}


def test_only_node_0_reports_where_azure_keeps_it(tmp_path: Path) -> None:
    """The folder of other nodes would overwrite the report of node 0."""
    spec = replace(SPEC, command=("sh", "-c", "echo $MLOPS_OUTPUT"), nodes=2)
    env = {"MASTER_ADDR": "h", "MASTER_PORT": "1", "NODE_RANK": "1"}
    assert run(spec, tmp_path, env).strip() == f"{tmp_path}/mlops_output_1"
    assert not (tmp_path / "outputs/mlops_output.json").exists()


@pytest.mark.parametrize(
    ("distribution", "env"),
    [
        (PYTORCH, {"NODE_RANK": "1", "MASTER_ADDR": "node-a", "MASTER_PORT": "6105"}),
        (MPI, {"OMPI_COMM_WORLD_RANK": "1", "AZ_BATCH_MASTER_NODE": "node-a:6105"}),
        (
            TENSORFLOW,
            {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": ["node-a:6105", "node-b:2"]}, "task": {"type": "worker", "index": 1}}
                )
            },
        ),
    ],
)
def test_a_node_finds_its_place(distribution: str, env: dict[str, str], tmp_path: Path) -> None:
    """Rank, host and port of node 0 come from what the platform sets for each way to distribute."""
    script = 'echo "$MLOPS_NODE_RANK $MLOPS_MASTER_ADDR $MLOPS_MASTER_PORT"'
    spec = replace(SPEC, command=("sh", "-c", script), nodes=2)
    assert run(spec, tmp_path, env, distribution) == "1 node-a 6105\n"


AZURES = {"MLFLOW_TRACKING_URI": "azureml://x", "MLFLOW_TRACKING_TOKEN": "secret-of-azure", "MLFLOW_RUN_ID": "theirs"}
SHOW = 'echo "$MLFLOW_TRACKING_URI $MLFLOW_RUN_ID $MLFLOW_TRACKING_TOKEN"'


def test_our_tracking_wins_and_their_token_stays_away(tmp_path: Path) -> None:
    """With a run of ours, the program sees our server and run, and not the token for Azure's own."""
    ours = {"MLFLOW_TRACKING_URI": "https://mlflow.example", "MLFLOW_RUN_ID": "ours"}
    spec = replace(SPEC, command=("sh", "-c", SHOW), env=ours)
    assert run(spec, tmp_path, AZURES) == "https://mlflow.example ours \n"


def test_their_tracking_stays_without_ours(tmp_path: Path) -> None:
    """Without an experiment the program sees what Azure sets."""
    assert run(replace(SPEC, command=("sh", "-c", SHOW)), tmp_path, AZURES) == "azureml://x theirs secret-of-azure\n"


def test_a_plain_job_is_serverless() -> None:
    """Without a compute target there is none in the job, one node, and no tier."""
    found = body()
    assert {"computeId", "queueSettings", "distribution", "limits", "identity", "outputs"} & set(found) == set()
    assert found["resources"] == {"instanceCount": 1}
    assert found["displayName"] == "dag.train"


def test_all_fields_reach_the_job() -> None:
    """Machine type, nodes, time limit, identity, tags, shared memory and experiment are where the API has them."""
    spec = replace(SPEC, nodes=4, resources=Resources(instance_type="Standard_NC6"), max_runtime=90.2)
    found = body(spec, compute="cpu", identity="managed", identity_client_id="c", tags={"a": "b"}, shm_size="2g")
    assert found["computeId"] == f"{WORKSPACE}/computes/cpu"
    assert found["resources"] == {"instanceCount": 4, "instanceType": "Standard_NC6", "shmSize": "2g"}
    assert found["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 1}
    assert found["limits"] == {"jobLimitsType": "Command", "timeout": "PT91S"}
    assert found["identity"] == {"identityType": "Managed", "clientId": "c"}
    assert found["tags"] == {"a": "b", "airflow-mlops": "true"}


@pytest.mark.parametrize(
    ("options", "compute", "tier"),
    [
        ({}, "", {"jobTier": "Spot"}),
        ({"compute": "cpu", "spot_compute": "cheap"}, "cheap", None),
        ({"spot_compute": "cheap"}, "cheap", None),
    ],
)
def test_spot_is_a_tier_or_a_target(options: dict[str, str], compute: str, tier: Any) -> None:
    """A serverless job asks for the tier; with compute targets the one of low priority is taken."""
    found = body(replace(SPEC, spot=True), **options)
    assert found.get("computeId", "").rpartition("/")[2] == compute
    assert found.get("queueSettings") == tier


def test_spot_on_a_target_that_is_none_is_refused() -> None:
    """What the target would ignore is not sent; the message names the option."""
    with pytest.raises(InvalidSpecError, match="spot_compute"):
        body(replace(SPEC, spot=True), compute="cpu")


def test_a_datastore_is_mounted_for_checkpoints() -> None:
    """The program sees where Azure mounts it; other addresses are passed on; a bare path is refused."""
    found = body(replace(SPEC, checkpoint="azureml://datastores/d/paths/p"))
    uri = found["outputs"]["mlops_checkpoint"]["uri"]
    assert (uri, "MLOPS_CHECKPOINT_DIR" in found["environmentVariables"]) == ("azureml://datastores/d/paths/p", False)
    assert 'MLOPS_CHECKPOINT_DIR="${{outputs.mlops_checkpoint}}"' in found["command"]
    there = body(replace(SPEC, checkpoint="abfss://c@a.dfs.core.windows.net/x"))
    assert there["environmentVariables"]["MLOPS_CHECKPOINT_DIR"] == "abfss://c@a.dfs.core.windows.net/x"
    with pytest.raises(InvalidSpecError, match="azureml://datastores"):
        body(replace(SPEC, checkpoint="checkpoints"))


def test_variables_that_azure_would_replace_are_refused() -> None:
    """The message names the variable."""
    with pytest.raises(InvalidSpecError, match="'WORD'"):
        body(replace(SPEC, env={"WORD": "${{name}}"}))


@pytest.mark.parametrize(
    ("secret", "there"),
    [
        ("team/api-key", "https://team.vault.azure.net/secrets/api-key"),
        ("https://team.vault.azure.cn/secrets/k/0123ab", "https://team.vault.azure.cn/secrets/k/0123ab"),
    ],
)
def test_a_secret_is_an_address_in_a_vault(secret: str, there: str) -> None:
    """A vault's name and a secret's, or the secret's own identifier."""
    assert address("TOKEN", secret, VAULT) == there
    assert f"TOKEN={there}" in body(replace(SPEC, secret_env={"TOKEN": secret}))["command"]


def test_a_secret_is_no_plain_variable_too() -> None:
    """A variable that is a secret stands nowhere else, whatever the spec says."""
    spec = replace(SPEC, env={"TOKEN": "plain", "WORD": "x"}, secret_env={"TOKEN": "team/api-key"})
    variables = body(spec)["environmentVariables"]
    assert ("TOKEN" in variables, variables["WORD"]) == (False, "x")


@pytest.mark.parametrize("secret", ["WORKER_VARIABLE", "a/b/c", "http://v.vault.azure.net/secrets/x", "v/x y"])
def test_a_secret_that_is_nowhere_is_refused_by_name(secret: str) -> None:
    """A variable of the worker has no place on this platform; the message says what to write."""
    with pytest.raises(InvalidSpecError, match="'TOKEN'") as caught:
        body(replace(SPEC, secret_env={"TOKEN": secret}))
    assert "<vault>/<secret>" in str(caught.value)


@pytest.mark.parametrize("field", ["cpus", "memory_mib"])
def test_sizes_are_the_machine_types(field: str) -> None:
    """What the platform cannot honour is refused by its name."""
    with pytest.raises(UnsupportedFeatureError, match=f"resources.{field}"):
        refuse_sizes("azureml", replace(SPEC, resources=Resources(**{field: 2})))


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("azureml:train:3", f"{WORKSPACE}/environments/train/versions/3"),
        (
            "azureml://registries/azureml/environments/x/versions/1",
            "azureml://registries/azureml/environments/x/versions/1",
        ),
        ("/subscriptions/s/x", "/subscriptions/s/x"),
    ],
)
def test_an_environment_is_taken_as_it_is(image: str, found: str) -> None:
    """Environments of the workspace, of registries and by id need nothing made."""
    assert environment_of(image, WORKSPACE) == (found, "")


def test_an_image_has_one_version_for_ever() -> None:
    """The same image is the same version of an environment; another one is another; none is refused."""
    first, second = environment_of("train:1", WORKSPACE), environment_of("train:2", WORKSPACE)
    assert first == environment_of("train:1", WORKSPACE)
    assert first != second
    for image in ("", "azureml:train"):
        with pytest.raises(InvalidSpecError, match="azureml:"):
            environment_of(image, WORKSPACE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"computte": "x"}, "did you mean 'compute'"),
        ({"compute": 3}, "'compute'"),
        ({"tags": "x"}, "'tags'"),
        ({"identity": "me"}, "'identity'"),
        ({"distribution": "pytorh"}, "did you mean 'pytorch'"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    """The message names the option and what there is."""
    with pytest.raises(InvalidSpecError, match=said):
        read_options("azureml", options, {})


def test_a_connection_gives_defaults() -> None:
    """A spec's own option wins over the connection's."""
    found = read_options("azureml", {"compute": "mine"}, {"compute": "theirs", "spot_compute": "cheap"})
    assert (found.compute, found.spot_compute) == ("mine", "cheap")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 256])
def test_names_that_no_job_can_have_are_refused(name: str) -> None:
    """The message has the rule."""
    with pytest.raises(InvalidSpecError, match="255"):
        body(name=name)


def test_long_owners_and_data_fit_into_properties() -> None:
    """Names of the longest kind and many inputs are kept in several properties, each short enough."""
    version = DataVersion("data/" + "x" * 200, "v", "c" * 40, "md5:1", 3, repo="https://example.com/" + "y" * 300)
    spec = replace(SPEC, inputs={f"input{number}": version for number in range(8)})
    found = command_job(
        spec, "n", TaskIdentity("d" * 250, "r" * 250, "t" * 250), AzureMLOptions(), workspace=WORKSPACE, vault=VAULT
    )
    check(JOB, {**found, "environmentId": "e"})
