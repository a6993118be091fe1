"""What a program reported: a file in the archive that SageMaker makes of a job's output folder.

It is there because the job began with an empty one. So an archive without it, or no archive, means that it was lost.
"""

from __future__ import annotations

import importlib
import tarfile
import zlib
from typing import Any, cast

from airflow_mlops.core.errors import JobFailedError, NotFoundError
from airflow_mlops.platforms.aws import Aws
from airflow_mlops.platforms.aws_answers import refusal
from airflow_mlops.training.backends.sagemaker_job import REPORT_NAME, output_address
from airflow_mlops.training.output import Output

Json = dict[str, Any]

LONGEST_REPORT = 1 << 20
"""Bytes of a report that are read."""


def read_report(aws: Aws, region: str, job: Json) -> Output:
    """Return what the program reported; nothing when it reported nothing.

    :raises NotFoundError: the archive is gone, or the report is not in it
    :raises JobFailedError: the report or the archive cannot be used
    """
    bucket, key = output_address(job)
    where = f"s3://{bucket}/{key}"
    text = _read(aws, region, bucket, key)
    if text is None:
        raise NotFoundError(
            f"Job {job['TrainingJobName']!r} succeeded, but its report {REPORT_NAME} is not in {where}. Clear the task "
            "to train again, or give the job a tracking run, which keeps metrics and model."
        )
    return Output.read(text, f"{REPORT_NAME} in {where}") if text else Output()


def _read(aws: Aws, region: str, bucket: str, key: str) -> str | None:
    """Return the text of the report, or ``None`` when the archive does not hold one."""
    errors = importlib.import_module("botocore.exceptions")
    body = aws.call("s3", "get_object", region=region, Bucket=bucket, Key=key)["Body"]
    try:
        with tarfile.open(fileobj=cast("Any", body), mode="r|gz") as archive:
            for member in archive:
                if member.isfile() and member.name.removeprefix("./") == REPORT_NAME:
                    return _text(archive, member, f"s3://{bucket}/{key}")
    except errors.BotoCoreError as error:
        raise refusal(error, "s3 get_object", aws.conn_id) from error
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise JobFailedError(f"The archive s3://{bucket}/{key} with the job's report is broken: {error}.") from error
    finally:
        body.close()
    return None


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> str:
    if member.size > LONGEST_REPORT:
        raise JobFailedError(
            f"The job's report {REPORT_NAME} in {where} has {member.size} bytes; at most {LONGEST_REPORT} are read. "
            "Log to the tracking run and report a few metrics."
        )
    found = archive.extractfile(member)
    return "" if found is None else found.read().decode(errors="replace")
