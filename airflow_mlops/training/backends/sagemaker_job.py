"""From a training spec to the request that starts a training job, and back from the job's description. Pure.

What has to come back with one look is in the hyperparameters: the digest of the spec and the data versions. What the
platform should sort and bill by is in the tags.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.training import launch
from airflow_mlops.training.backends import sagemaker_start as starting
from airflow_mlops.training.backends.sagemaker_machine import instance_type
from airflow_mlops.training.backends.sagemaker_options import SageMakerOptions
from airflow_mlops.training.backends.sagemaker_tags import tags_of
from airflow_mlops.training.contract import TrainingSpec

Json = dict[str, Any]
Starter = Callable[..., starting.Start]

SPEC, DATA = "mlops_spec", "mlops_data_"
"""Hyperparameters: the digest of the spec, and a data version for each input."""

OUTPUT_FOLDER, REPORT_NAME = f"{starting.ROOT}/output/data", "mlops_output.json"
INPUTS, CHECKPOINTS = f"{starting.ROOT}/input/data", f"{starting.ROOT}/checkpoints"
MOST_HYPERPARAMETERS = 100
DAY, LONGEST = 24 * 3600, 28 * 24 * 3600
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


def job_request(
    spec: TrainingSpec,
    name: str,
    owner: TaskIdentity,
    options: SageMakerOptions,
    region: str,
    *,
    starter: Starter = starting.start,
) -> Json:
    """Return the fields of ``CreateTrainingJob``.

    :param starter: makes the start of words, steps and variables
    :raises InvalidSpecError: the name or the spec cannot be a training job
    """
    if not _NAME.fullmatch(name):
        raise InvalidSpecError(
            f"The job name {name!r} cannot be a training job. Use at most 63 letters, digits and '-'."
        )
    if not spec.image:
        raise InvalidSpecError("A SageMaker job needs an image. Set image to one in ECR with the training program.")
    channels = _channels(spec, options)
    start = _start(spec, name, options, channels, region, starter=starter)
    request: Json = {
        "TrainingJobName": name,
        "RoleArn": options.execution_role,
        "AlgorithmSpecification": _algorithm(spec, options, start),
        "HyperParameters": _hyperparameters(spec, start),
        "Environment": start.environment,
        "InputDataConfig": [_channel(channel, address) for channel, address in channels.items()],
        "OutputDataConfig": _given(S3OutputPath=options.output_path, KmsKeyId=options.kms_key),
        "ResourceConfig": _given(
            InstanceType=instance_type(spec.resources),
            InstanceCount=spec.nodes,
            VolumeSizeInGB=options.volume_gib,
            VolumeKmsKeyId=options.volume_kms_key,
            KeepAlivePeriodInSeconds=options.keep_alive,
        ),
        "StoppingCondition": _limits(spec, options),
        "VpcConfig": _given(Subnets=list(options.subnets), SecurityGroupIds=list(options.security_group_ids)),
        "CheckpointConfig": _checkpoint(spec.checkpoint),
        "EnableManagedSpotTraining": spec.spot,
        "EnableInterContainerTrafficEncryption": options.encrypt_traffic,
        "EnableNetworkIsolation": options.network_isolation,
        "Tags": tags_of(owner, options.tags),
    }
    return _given(**request)


def digest_of(job: Mapping[str, Any]) -> str:
    """Return the digest of the spec that a job was made from; empty if it is not ours."""
    return str((job.get("HyperParameters") or {}).get(SPEC, ""))


def data_of(job: Mapping[str, Any]) -> dict[str, DataVersion]:
    """Return the data versions that a job is trained on, by input."""
    found = job.get("HyperParameters") or {}
    return {key[len(DATA) :]: DataVersion.from_dict(json.loads(found[key])) for key in found if key.startswith(DATA)}


def run_of(job: Mapping[str, Any]) -> str:
    """Return the tracking run that was made for a job; empty if there is none."""
    return str((job.get("Environment") or {}).get(launch.RUN_ID, ""))


def output_address(job: Mapping[str, Any]) -> tuple[str, str]:
    """Return bucket and key of the archive with what a job wrote to its output folder.

    https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-output.html
    """
    path = f"{job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job['TrainingJobName']}/output/output.tar.gz"
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def _algorithm(spec: TrainingSpec, options: SageMakerOptions, start: starting.Start) -> Json:
    definitions = [{"Name": name, "Regex": regex} for name, regex in options.metric_definitions.items()]
    return _given(
        TrainingImage=spec.image,
        TrainingInputMode=options.input_mode,
        ContainerEntrypoint=start.entrypoint,
        ContainerArguments=start.arguments,
        MetricDefinitions=definitions,
    )


def _hyperparameters(spec: TrainingSpec, start: starting.Start) -> dict[str, str]:
    found = {SPEC: spec.digest(), **_versions(spec), **start.packed}
    if len(found) > MOST_HYPERPARAMETERS:
        raise InvalidSpecError(
            f"{len(spec.inputs)} inputs beside a long command need {len(found)} hyperparameters. SageMaker takes "
            f"{MOST_HYPERPARAMETERS}: put the code into the image."
        )
    return found


def _start(
    spec: TrainingSpec,
    name: str,
    options: SageMakerOptions,
    channels: Mapping[str, str],
    region: str,
    *,
    starter: Starter,
) -> starting.Start:
    steps = [starting.REPORT, *starting.world_steps(spec.nodes)]
    steps += [starting.SECRETS] if spec.secret_env else []
    steps += [_fetch_step(variable, version) for variable, (version, _) in _fetches(spec, options).items()]
    return starter(launch.command_line(spec), steps, _environment(spec, name, channels, options, region))


def _environment(
    spec: TrainingSpec, name: str, channels: Mapping[str, str], options: SageMakerOptions, region: str
) -> dict[str, str]:
    """Return the variables that SageMaker sets: the spec's and ours."""
    places = {_variable(channel): f"{INPUTS}/{channel}" for channel in channels}
    fetched = {variable: path for variable, (_, path) in _fetches(spec, options).items()}
    own = {
        starting.ROOT_VARIABLE: starting.ROOT,
        launch.JOB_NAME: name,
        launch.OUTPUT: f"{OUTPUT_FOLDER}/{REPORT_NAME}",
        **({launch.CHECKPOINT_DIR: CHECKPOINTS} if spec.checkpoint else {}),
        **starting.world_variables(spec.nodes),
        **starting.secret_variables(spec.secret_env),
    }
    plain = {"PYTHONUNBUFFERED": "1", "AWS_DEFAULT_REGION": region, **spec.env, **places, **fetched, **own}
    return {key: str(value) for key, value in plain.items() if key not in spec.secret_env}


def _channels(spec: TrainingSpec, options: SageMakerOptions) -> dict[str, str]:
    """Return channel -> address: those of the options, and every input that the spec's variables place in S3."""
    found = dict(options.inputs)
    for variable, value in spec.env.items():
        if variable.startswith(launch.INPUT_PREFIX) and str(value).startswith("s3://"):
            found.setdefault(variable.removeprefix(launch.INPUT_PREFIX).lower(), str(value))
    if bad := [address for address in found.values() if not address.startswith("s3://")]:
        raise InvalidSpecError(f"The input {bad[0]!r} is not in S3. Write 's3://<bucket>/<prefix>'.")
    return found


def _channel(name: str, address: str) -> Json:
    source = {"S3DataType": "S3Prefix", "S3Uri": address, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _fetches(spec: TrainingSpec, options: SageMakerOptions) -> dict[str, tuple[DataVersion, str]]:
    """Return, by variable, the data versions that the program would get as an address, and where they are put."""
    known = {_variable(key): (version, f"{INPUTS}/{key}") for key, version in spec.inputs.items() if version.repo}
    is_address = {key: spec.env.get(key) == version.uri for key, (version, _) in known.items()}
    return {key: found for key, found in known.items() if is_address[key]} if options.fetch_inputs else {}


def _fetch_step(variable: str, version: DataVersion) -> str:
    """Return ``dvc get``: https://doc.dvc.org/command-reference/get."""
    source = shlex.join(["--rev", version.commit, "--", version.repo, version.path])
    return f'mkdir -p "${{{variable}%/*}}"; dvc get --out "${variable}" {source}'


def _variable(name: str) -> str:
    return launch.INPUT_PREFIX + re.sub(r"\W", "_", name).upper()


def _versions(spec: TrainingSpec) -> dict[str, str]:
    found = {DATA + key: json.dumps(version.to_dict(), separators=(",", ":")) for key, version in spec.inputs.items()}
    if long := [key for key, text in found.items() if len(key) > 256 or len(text) > starting.LONGEST_PACK]:
        raise InvalidSpecError(
            f"The input {long[0][len(DATA) :]!r} is described with too many characters for SageMaker."
        )
    return found


def _limits(spec: TrainingSpec, options: SageMakerOptions) -> Json:
    """Return how long the job may run and, on spot machines, wait. Without a limit it is SageMaker's own: a day."""
    runtime = DAY if spec.max_runtime is None else max(1, math.ceil(spec.max_runtime))
    if runtime > LONGEST:
        raise InvalidSpecError(f"max_runtime is {runtime} s. SageMaker lets a job run for {LONGEST} s at most.")
    return _given(MaxRuntimeInSeconds=runtime, MaxWaitTimeInSeconds=runtime + options.max_wait if spec.spot else 0)


def _checkpoint(address: str) -> Json:
    if address and not address.startswith("s3://"):
        raise InvalidSpecError(
            f"The checkpoint {address!r} is not in S3, and a machine's own disk ends with the job. "
            "Write 's3://<bucket>/<prefix>': SageMaker keeps the folder and that place the same."
        )
    return {"S3Uri": address, "LocalPath": CHECKPOINTS} if address else {}


def _given(**fields: Any) -> Json:
    """Return the fields that say something."""
    return {key: value for key, value in fields.items() if value not in ("", 0, [], {}, False)}
