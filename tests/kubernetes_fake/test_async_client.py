"""The official asynchronous client, which a triggerer needs, talks to the same fake."""

from __future__ import annotations

import asyncio
from typing import Any

from kubernetes_asyncio import client, config, watch


def test_the_asynchronous_client_lists_and_watches(session: Any) -> None:
    """One list and one watch with bookmarks see a Job through to its end, whatever the number of Jobs."""

    async def follow() -> list[str]:
        configuration = client.Configuration()
        await config.load_kube_config(str(session.fake.kubeconfig), client_configuration=configuration)
        async with client.ApiClient(configuration) as api:
            batch = client.BatchV1Api(api)
            version = (await batch.list_namespaced_job("default")).metadata.resource_version
            await asyncio.to_thread(session.submit, "seen", "true")
            options = {"resource_version": version, "allow_watch_bookmarks": True, "timeout_seconds": 5}
            kinds = []
            async for event in watch.Watch().stream(batch.list_namespaced_job, "default", **options):
                kinds.append(event["type"])
                status = event["raw_object"].get("status", {})
                if any(one["type"] == "Complete" for one in status.get("conditions", [])):
                    break
            return kinds

    session.fake.calls.reset()
    kinds = asyncio.run(follow())
    assert kinds[0] == "ADDED"
    assert set(kinds[1:]) <= {"MODIFIED", "BOOKMARK"}
    calls = session.fake.calls
    assert (calls.count("list", "jobs"), calls.count("watch", "jobs"), calls.count("get")) == (1, 1, 0)
