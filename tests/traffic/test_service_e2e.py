"""The ratio of pods on a real control plane: real Deployment, ReplicaSet and EndpointSlice controllers."""

import asyncio
import contextlib

import pytest
from live_operator import running_operator
from local_cluster import eventually

from canary_rollout.kube.port import CANARY_ROLLOUTS

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
WITHIN = 60.0
LAST = {"checkout-canary": [0], "checkout": [4]}
"""Pods asked for in the end; a watch of its own shows them, after or before the status."""


def deployment(name, track, replicas):
    labels = {"app": "checkout", "track": track}
    container = {"name": "app", "image": "idle:v1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def rollout(cluster):
    return {
        "apiVersion": CANARY_ROLLOUTS.api_version,
        "kind": CANARY_ROLLOUTS.kind,
        "metadata": {"name": "checkout"},
        "spec": {
            "workload": {
                "stable": {"service": "checkout", "deployment": "checkout"},
                "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
                "drain": "1s",
            },
            "traffic": {"service": {"service": "shop", "replicas": 4, "settle": "0s"}},
            "metrics": {"prometheus": cluster.prometheus_url, "interval": "1s"},
            "analysis": {"enabled": False},
            "defaultHaltRules": False,
            "haltRules": [],
            "stages": [
                {"name": "quarter", "weight": "25%", "hold": "2s"},
                {"name": "all", "weight": "100%", "hold": "2s"},
            ],
        },
    }


class Shop:
    """The namespace, and every number of pods that was asked for."""

    def __init__(self, cluster, namespace):
        self.admin, self.namespace = cluster.admin, namespace
        self.asked = {"checkout": [], "checkout-canary": []}
        self.status = {}

    async def create(self, obj):
        await self.admin.create({**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}})

    @contextlib.asynccontextmanager
    async def watched(self):
        tasks = [
            asyncio.create_task(self._watch("apps/v1", "Deployment", self._deployment)),
            asyncio.create_task(self._watch(CANARY_ROLLOUTS.api_version, CANARY_ROLLOUTS.kind, self._rollout)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, version, kind, take):
        while True:
            async for event in self.admin.stream(version, kind, namespace=self.namespace):
                if event.type in {"ADDED", "MODIFIED"}:
                    take(event.object)
            await asyncio.sleep(0.1)

    def _deployment(self, obj):
        seen, now = self.asked[obj["metadata"]["name"]], obj["spec"]["replicas"]
        if not seen or seen[-1] != now:
            seen.append(now)

    def _rollout(self, obj):
        self.status = obj.get("status") or {}

    async def phase(self, wanted):
        try:
            async with asyncio.timeout(WITHIN):
                while self.status.get("phase") != wanted:  # noqa: ASYNC110 - the watch sets no event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"not {wanted}: {self.status.get('phase')}: {self.status.get('message')}; {self.asked}")


async def test_a_whole_rollout_by_pods_with_the_real_controllers(local_cluster, namespace):
    local_cluster.images["idle"] = ["sleep", "3600"]
    shop = Shop(local_cluster, namespace)
    service = {"selector": {"app": "checkout"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    await shop.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": service})
    await shop.create(deployment("checkout", "stable", 4))
    await shop.create(deployment("checkout-canary", "canary", 0))
    async with running_operator(local_cluster, [namespace]), shop.watched():
        await shop.create(rollout(local_cluster))
        await shop.phase("Idle")
        image = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "idle:v2"}]}}}}
        await shop.admin.patch("apps/v1", "Deployment", "checkout-canary", image, namespace=namespace)
        await shop.phase("Succeeded")
        await eventually(lambda: all(shop.asked[name][-1:] == last for name, last in LAST.items()), "all seen")
    assert shop.asked["checkout-canary"][:3] == [0, 1, 4]
    assert shop.asked["checkout-canary"][-1] == 0
    assert shop.asked["checkout"] == [4, 3, 0, 4]
