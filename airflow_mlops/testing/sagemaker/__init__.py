"""Strict Amazon SageMaker for tests, on this machine only: training jobs, pipelines, and the services around them.

It proves that a client's requests are well formed and signed, what they cost, and how the client bears what goes
wrong. It does not prove that AWS agrees. Built on botocore's own service models, by which every request and every
answer is checked, refusing unknown members; on what the documentation says of names, limits, statuses and billing; and
on real programs: a training job runs its command as processes of this machine, a node a process.

Served: ``CreateTrainingJob``, ``DescribeTrainingJob``, ``ListTrainingJobs``, ``StopTrainingJob``, ``Search`` (of jobs
and pipeline executions), ``DescribePipeline`` and the executions of pipelines whose steps are training jobs; of
CloudWatch Logs reading, of S3 ``GetObject``, of Secrets Manager ``GetSecretValue``, of STS ``AssumeRole``. Managed spot
training with interruptions and the limits of time; metric definitions; checkpoints; archives of models and outputs.

Not modelled, and silently absent: images (any name works, nothing is pulled), VPC, KMS, network isolation, rights
beyond a valid signature, warm pools, debuggers and profilers. ``/opt/ml`` is a private folder: see
:mod:`airflow_mlops.testing.sagemaker.node`. Tuning jobs and what is not modelled of them:
:mod:`airflow_mlops.testing.sagemaker.tuning` and ``tuning_search`` beside it.
"""

from __future__ import annotations

from airflow_mlops.testing.sagemaker.fake import BUCKET, REGION, ROLE, SageMakerFake, sagemaker_fake
from airflow_mlops.testing.sagemaker.faults import Faults

__all__ = ["sagemaker_fake", "SageMakerFake", "Faults", "REGION", "BUCKET", "ROLE"]
