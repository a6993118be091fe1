"""What a test plants in a cluster: images that cannot be pulled, and quotas.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_mlops.testing.kubernetes.kinds import Kind
from airflow_mlops.testing.kubernetes.problems import Json, Problem

QUOTA = "test-quota"


class Plants:
    """Asked by the API server and the Job controller before they make an object, and by the kubelet for its image."""

    def __init__(self) -> None:
        self._limits: dict[tuple[str, Kind], int] = {}
        self.missing_images: set[str] = set()

    def limit(self, kind: Kind, namespace: str, most: int | None) -> None:
        """Let a namespace have at most so many objects of a kind; None for no limit."""
        if most is None:
            self._limits.pop((namespace, kind), None)
        else:
            self._limits[namespace, kind] = most

    def check_quota(self, kind: Kind, item: Json, others: Iterable[Json]) -> None:
        """Refuse what would exceed a quota.

        :param others: the objects of this kind in the same namespace

        :raises Problem: 403
        """
        namespace, name = item["metadata"].get("namespace", ""), item["metadata"]["name"]
        most = self._limits.get((namespace, kind))
        if most is None:
            return
        used = len([one for one in others if _counts(one)])
        if used >= most:
            resource = "pods" if not kind.group else f"count/{kind.resource}"
            told = f"exceeded quota: {QUOTA}, requested: {resource}=1, used: {resource}={used}, limited: {resource}="
            raise Problem("Forbidden", f'{kind.resource} "{name}" is forbidden: {told}{most}')


def _counts(item: Json) -> bool:
    """Say whether an object uses up quota: a pod that has ended does not."""
    return (item.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}
