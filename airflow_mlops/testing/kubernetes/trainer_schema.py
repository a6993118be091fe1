"""The shape of a TrainJob and of its runtimes, as the CRDs of Kubeflow Trainer 2.3.0 have it.

Source: https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainjob_types.go (the same fields as
in 2.2; 2.1 has ``podTemplateOverrides`` for ``runtimePatches`` and no ``activeDeadlineSeconds``). All fields are there
but ``initializer``; what the CRD copies from core types is checked against the client's models (``x-model``).
"""

from __future__ import annotations

from airflow_mlops.testing.kubernetes.problems import Json

QUANTITY = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+(\.[0-9]*)?))?$"
CONDITION_REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"


def _object(*required: str, **properties: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Json, most: int, key: str = "") -> Json:
    """Return the schema of a list, in which *key* may stand only once, if there is one."""
    keyed = {"x-kubernetes-list-map-keys": [key]} if key else {}
    return {"type": "array", "items": items, "maxItems": most, **keyed}


def _text(most: int = 253, least: int = 0) -> Json:
    return {"type": "string", "maxLength": most, "minLength": least}


def _count(least: int = 0) -> Json:
    return {"type": "integer", "minimum": least}


def _core(model: str) -> Json:
    """Return the schema of a type of the core API, by the client's model of it."""
    return {"x-model": model}


ANY_TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITIES: Json = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": QUANTITY, "x-kubernetes-int-or-string": True},
}
METADATA = _object(
    labels=TEXTS,
    annotations=TEXTS,
    name=ANY_TEXT,
    namespace=ANY_TEXT,
    finalizers={"type": "array", "items": ANY_TEXT},
)

TRAINER = _object(
    image=_text(500),
    command=_list(_text(1 << 20), 128),
    args=_list(_text(1 << 20), 128),
    env=_list(_core("V1EnvVar"), 128, "name"),
    numNodes={"type": "integer"},
    numProcPerNode={"type": "integer"},
    resourcesPerNode=_object(
        limits=QUANTITIES,
        requests=QUANTITIES,
        claims={"type": "array", "items": _object("name", name=ANY_TEXT, request=ANY_TEXT)},
    ),
)

CONTAINER_PATCH = _object(
    "name",
    name=_text(least=1),
    env=_list(_core("V1EnvVar"), 128, "name"),
    volumeMounts=_list(_core("V1VolumeMount"), 128, "name"),
    securityContext=_core("V1SecurityContext"),
)

POD_SPEC_PATCH = _object(
    serviceAccountName=_text(),
    volumes=_list(_core("V1Volume"), 128, "name"),
    initContainers=_list(CONTAINER_PATCH, 64, "name"),
    containers=_list(CONTAINER_PATCH, 64, "name"),
    imagePullSecrets=_list(_core("V1LocalObjectReference"), 64, "name"),
    securityContext=_core("V1PodSecurityContext"),
    nodeSelector=TEXTS,
    affinity=_core("V1Affinity"),
    tolerations=_list(_core("V1Toleration"), 128),
    schedulingGates=_list(_core("V1PodSchedulingGate"), 16, "name"),
    terminationGracePeriodSeconds=_count(),
)

POD_TEMPLATE_PATCH = _object(metadata=METADATA, spec=POD_SPEC_PATCH)
JOB_TEMPLATE_PATCH = _object(metadata=METADATA, spec=_object(template=POD_TEMPLATE_PATCH))
REPLICATED_JOB_PATCH = _object("name", name=_text(least=1), template=JOB_TEMPLATE_PATCH)
JOB_SET_PATCH = _object(metadata=METADATA, spec=_object(replicatedJobs=_list(REPLICATED_JOB_PATCH, 100, "name")))
RUNTIME_PATCH = _object(
    "manager",
    manager=_text(least=1),
    time=ANY_TEXT,
    trainingRuntimeSpec=_object(template=JOB_SET_PATCH),
)

TRAIN_JOB_SPEC = _object(
    "runtimeRef",
    runtimeRef=_object("name", name=_text(least=1), apiGroup=_text(), kind=_text()),
    trainer=TRAINER,
    runtimePatches=_list(RUNTIME_PATCH, 16, "manager"),
    suspend={"type": "boolean"},
    activeDeadlineSeconds=_count(1),
    managedBy={
        "type": "string",
        "enum": ["trainer.kubeflow.org/trainjob-controller", "kueue.x-k8s.io/multikueue"],
    },
)

CONDITION = _object(
    *("type", "status", "reason", "message", "lastTransitionTime"),
    type=_text(316),
    status={"type": "string", "enum": ["True", "False", "Unknown"]},
    reason={"type": "string", "maxLength": 1024, "minLength": 1, "pattern": CONDITION_REASON},
    message=_text(32768),
    lastTransitionTime=ANY_TEXT,
    observedGeneration=_count(),
)

COUNTS = ("ready", "succeeded", "failed", "active", "suspended")
TRAIN_JOB_STATUS = _object(
    conditions=_list(CONDITION, 8),
    jobsStatus=_list(_object("name", *COUNTS, name=_text(least=1), **{key: _count() for key in COUNTS}), 100),
    trainerStatus=_object(
        "lastUpdatedTime",
        progressPercentage={"type": "integer", "minimum": 0, "maximum": 100},
        estimatedRemainingSeconds=_count(),
        metrics=_list(_object("name", "value", name=_text(64, 1), value=_text(64, 1)), 256),
        lastUpdatedTime=ANY_TEXT,
    ),
)

TRAIN_JOB = _object(spec=TRAIN_JOB_SPEC, status=TRAIN_JOB_STATUS)

POLICY: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
REPLICATED_JOB = _object(
    "name", "template", name=_text(least=1), replicas=_count(1), template=_core("V1JobTemplateSpec")
)
RUNTIME = _object(
    spec=_object(
        "template",
        mlPolicy=_object(numNodes=_count(1), torch=POLICY),
        template=_object(
            metadata=METADATA,
            spec=_object(
                network=_object(subdomain=_text(63)),
                replicatedJobs=_list(REPLICATED_JOB, 100),
            ),
        ),
    )
)
"""A runtime as far as it is modelled here: plain or torch, without policies for failure, success and start."""
