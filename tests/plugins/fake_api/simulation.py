"""The deployment controller and the kubelet, as far as a rollout sees them. On the event loop's clock."""

import asyncio
import hashlib
import json

from canary_rollout.kube.port import DEPLOYMENTS, PODS, REPLICA_SETS, Object
from fake_api.api import FakeApi
from fake_api.rows import Event, Key

HASH = "pod-template-hash"


def template_hash(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


class Deployments:
    """Makes pods of Deployments. New pods become ready after ``ready_after`` seconds, or on :meth:`ready`.

    ``spec.paused`` is honoured as the real controller does: a changed template makes no new pods, scaling still works.
    """

    def __init__(self, api: FakeApi, *, ready_after: float | None = 0.0, observe_after: float = 0.0) -> None:
        """Watch ``api``.

        Args:
            api: whose Deployments.
            ready_after: seconds until a new pod is ready; ``None``: only on command.
            observe_after: seconds until the controller acts on a change.
        """
        self.api = api
        self.ready_after = ready_after
        self.observe_after = observe_after
        self.crashing: set[Key] = set()
        """Deployments whose new pods crash instead of becoming ready."""
        self._pods = 0
        api.store.listeners.append(self._changed)

    # Commands

    def ready(self, namespace: str, name: str) -> None:
        """All pods become ready, whatever they were."""
        self.crashing.discard((namespace, name))
        self._each(namespace, name, _ready_status)

    def unready(self, namespace: str, name: str) -> None:
        """All pods run but fail their readiness probe."""
        self._each(namespace, name, _unready_status)

    def crash(self, namespace: str, name: str, *, reason: str = "CrashLoopBackOff", restarts: int = 3) -> None:
        """All pods crash; ``reason`` may be OOMKilled."""
        self.crashing.add((namespace, name))
        self._each(namespace, name, lambda pod: _crash_status(pod, reason, restarts))

    def pods(self, namespace: str, name: str) -> list[Object]:
        """The pods of a Deployment, oldest first."""
        items = self.api.store.list_objects(PODS, namespace)["items"]
        return [pod for pod in items if pod["metadata"]["annotations"]["fake/deployment"] == name]

    # The controller

    def _changed(self, event: Event) -> None:
        if event.resource != DEPLOYMENTS:
            return
        obj = event.after or event.before
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if event.after is None:
            for pod in self.pods(*key):
                self._delete(PODS, pod)
            return
        seen = (event.after.get("status") or {}).get("observedGeneration")
        if event.before is None or seen != event.after["metadata"]["generation"]:
            asyncio.get_running_loop().call_later(self.observe_after, self._reconcile, *key)

    def _reconcile(self, namespace: str, name: str) -> None:
        deployment = self.api.store.peek(DEPLOYMENTS, namespace, name)
        if deployment is None:
            return
        spec = deployment["spec"]
        digest, replicas = template_hash(spec["template"]), spec.get("replicas", 1)
        pods = self.pods(namespace, name)
        old = [pod for pod in pods if pod["metadata"]["labels"][HASH] != digest]
        new = [pod for pod in pods if pod["metadata"]["labels"][HASH] == digest]
        if not spec.get("paused"):
            self._replica_set(deployment, digest)
        made = self.api.store.peek(REPLICA_SETS, namespace, f"{name}-{digest}") is not None
        if spec.get("paused") and not new and not (made and not old):
            # Paused: no new ReplicaSet; whatever runs is scaled as it is.
            self._scale(deployment, old, old[-1]["metadata"]["labels"][HASH] if old else None, replicas)
        else:
            if not spec.get("paused"):
                for pod in old[max(0, replicas - len(_ready(new))) :]:
                    self._delete(PODS, pod)
            self._scale(deployment, new, digest, replicas)
        self._status(namespace, name)

    def _scale(self, deployment: Object, pods: list[Object], digest: str | None, replicas: int) -> None:
        for pod in pods[replicas:]:
            self._delete(PODS, pod)
        if digest is None:
            return
        for _ in range(replicas - len(pods)):
            self._create(deployment, digest)

    def _replica_set(self, deployment: Object, digest: str) -> str:
        """The ReplicaSet of the present template, made if need be, also where it is to have no pods."""
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        namespace, name = metadata["namespace"], metadata["name"]
        set_name = f"{name}-{digest}"
        if self.api.store.peek(REPLICA_SETS, namespace, set_name) is None:
            self.api.store.create(
                REPLICA_SETS,
                namespace,
                {
                    "metadata": {
                        "name": set_name,
                        "labels": {**template["metadata"].get("labels", {}), HASH: digest},
                        "ownerReferences": [_owner("Deployment", name, metadata["uid"])],
                    },
                    "spec": {"template": template},
                },
                manager="kube-controller-manager",
            )
        return set_name

    def _create(self, deployment: Object, digest: str) -> None:
        self._pods += 1
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        namespace, name = metadata["namespace"], metadata["name"]
        set_name = self._replica_set(deployment, digest)
        pod = self.api.store.create(
            PODS,
            namespace,
            {
                "metadata": {
                    "name": f"{set_name}-{self._pods:05}",
                    "labels": {**template["metadata"].get("labels", {}), HASH: digest},
                    "annotations": {"fake/deployment": name},
                    "ownerReferences": [_owner("ReplicaSet", set_name, "")],
                },
                "spec": template["spec"],
            },
            manager="kube-controller-manager",
        )
        self._set_status(pod, _unready_status(pod))
        if (namespace, name) in self.crashing:
            self._set_status(pod, _crash_status(pod, "CrashLoopBackOff", 1))
        elif self.ready_after is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self.ready_after, self._become_ready, namespace, name, pod["metadata"]["name"])

    def _become_ready(self, namespace: str, name: str, pod_name: str) -> None:
        pod = self.api.store.peek(PODS, namespace, pod_name)
        if pod is None or (namespace, name) in self.crashing:
            return
        self._set_status(pod, _ready_status(pod))
        self._reconcile(namespace, name)

    def _each(self, namespace: str, name: str, status) -> None:
        for pod in self.pods(namespace, name):
            self._set_status(pod, status(pod))
        self._reconcile(namespace, name)

    def _status(self, namespace: str, name: str) -> None:
        deployment = self.api.store.peek(DEPLOYMENTS, namespace, name)
        digest = template_hash(deployment["spec"]["template"])
        pods = self.pods(namespace, name)
        ready = _ready(pods)
        updated = [pod for pod in pods if pod["metadata"]["labels"][HASH] == digest]
        wanted = deployment["spec"].get("replicas", 1)
        available = "True" if len(ready) >= wanted else "False"
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(updated),
            "readyReplicas": len(ready),
            "availableReplicas": len(ready),
            "unavailableReplicas": max(0, wanted - len(ready)),
            "conditions": [{"type": "Available", "status": available, "reason": "Fake", "message": ""}],
        }
        self.api.store.merge_patch(
            DEPLOYMENTS,
            namespace,
            name,
            {"status": status},
            subresource="status",
            manager="kube-controller-manager",
        )

    def _set_status(self, pod: Object, status: Object) -> None:
        metadata = pod["metadata"]
        before = self.api.store.peek(PODS, metadata["namespace"], metadata["name"])
        self.api.store.merge_patch(
            PODS,
            metadata["namespace"],
            metadata["name"],
            {"status": _dated(status, (before or {}).get("status") or {}, self.api.store.now())},
            subresource="status",
            manager="kubelet",
        )

    def _delete(self, resource, obj: Object) -> None:
        self.api.store.delete(resource, obj["metadata"]["namespace"], obj["metadata"]["name"])


def _owner(kind: str, name: str, uid: str) -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def _ready(pods: list[Object]) -> list[Object]:
    return [
        pod
        for pod in pods
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))
    ]


def _status(pod: Object, *, ready: bool, container: Object) -> Object:
    number = int(pod["metadata"]["name"][-5:])
    names = [c["name"] for c in pod["spec"].get("containers", ())] or ["app"]
    return {
        "phase": "Running",
        "podIP": f"10.244.{number // 250}.{number % 250 + 1}",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [{"name": name, "ready": ready, "restartCount": 0, **container} for name in names],
    }


def _dated(status: Object, before: Object, at: str) -> Object:
    """The status with the times a kubelet notes: when readiness changed, when a container ended."""
    old = {condition["type"]: condition for condition in before.get("conditions", ())}
    for condition in status["conditions"]:
        known = old.get(condition["type"], {})
        same = known.get("status") == condition["status"]
        condition["lastTransitionTime"] = known.get("lastTransitionTime", at) if same else at
    for container in status["containerStatuses"]:
        for state in (container["state"], container["lastState"]):
            if "terminated" in state:
                state["terminated"]["finishedAt"] = at
    return status


def _ready_status(pod: Object) -> Object:
    running = {"state": {"running": {}}, "lastState": {}}
    return {**_status(pod, ready=True, container=running)}


def _unready_status(pod: Object) -> Object:
    return _status(pod, ready=False, container={"state": {"running": {}}, "lastState": {}})


def _crash_status(pod: Object, reason: str, restarts: int) -> Object:
    """As the kubelet reports it: waiting in CrashLoopBackOff, the cause of death in ``lastState``."""
    died = {"reason": "OOMKilled", "exitCode": 137} if reason == "OOMKilled" else {"reason": "Error", "exitCode": 1}
    container = {
        "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}},
        "lastState": {"terminated": died},
    }
    return _status(pod, ready=False, container=container)
