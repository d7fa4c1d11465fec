"""What the cache keeps of an object, and what it shares."""

import copy

from canary_rollout.kube.compact import compact
from canary_rollout.kube.port import PODS

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "checkout-7d8e-abcde",
        "namespace": "shop",
        "uid": "1",
        "labels": {"app": "checkout"},
        "annotations": {"note": "long"},
        "managedFields": [{"manager": "kubelet"}],
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"kind": "ReplicaSet", "name": "checkout-7d8e", "uid": "2"}],
    },
    "spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "b"}]}]},
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z", "lastProbeTime": None}
        ],
        "containerStatuses": [
            {
                "name": "app",
                "restartCount": 2,
                "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                "imageID": "registry/app@sha256:0123",
                "containerID": "containerd://0123",
            }
        ],
    },
}


def test_of_a_pod_only_what_tells_whose_it_is_and_how_it_is_stays():
    before = copy.deepcopy(POD)
    kept = compact(PODS, POD)
    assert before == POD
    assert kept["metadata"].keys() == {"name", "namespace", "uid", "creationTimestamp", "ownerReferences"}
    assert "spec" not in kept
    assert kept["status"] == {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
        "containerStatuses": [
            {key: POD["status"]["containerStatuses"][0][key] for key in ("name", "restartCount", "state", "lastState")}
        ],
    }
