"""Deployments and pods as the engine sees them: what counts as a crash, and whose pods are whose."""

import pytest

from canary_rollout.kube.compact import compact
from canary_rollout.kube.port import PODS
from canary_rollout.model.units import format_instant
from canary_rollout.workloads.view import (
    PAUSE_MANAGER,
    crash_of,
    own_pods,
    pod_selector,
    selector_labels,
    version_view,
)

SERVING = 1_800_000_000.4


def at(seconds):
    return format_instant(int(SERVING) + seconds)


def pod(*, ready="True", changed=-100, created=-1000, name="checkout-abc-1", owner="checkout-abc", **container):
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": at(changed)}]
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": at(created),
            "ownerReferences": [{"kind": "ReplicaSet", "name": owner}],
        },
        "status": {
            "conditions": conditions,
            "containerStatuses": [{"name": "app", "state": {"running": {}}, **container}],
        },
    }


def ended(seconds, code=1, reason="Error"):
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at(seconds)}}


def test_a_healthy_pod_is_no_crash():
    assert crash_of(pod(), SERVING) == ""


@pytest.mark.parametrize(
    "reason", ["CrashLoopBackOff", "ImagePullBackOff", "CreateContainerConfigError", "RunContainerError"]
)
def test_a_container_that_waits_in_vain_is_a_crash_also_before_it_serves(reason):
    stuck = pod(state={"waiting": {"reason": reason}}, restartCount=4)
    assert crash_of(stuck, None) == f"pod checkout-abc-1, container app: {reason}, 4 restarts"


def test_a_container_that_is_being_created_is_none():
    assert crash_of(pod(ready="False", state={"waiting": {"reason": "ContainerCreating"}}), None) == ""


def test_a_container_that_ended_badly_since_it_serves_is_a_crash_even_if_it_runs_again():
    again = pod(lastState=ended(5, 137, "OOMKilled"), restartCount=1)
    assert crash_of(again, SERVING) == "pod checkout-abc-1, container app: OOMKilled (exit code 137), 1 restarts"


def test_one_that_ended_in_the_second_in_which_serving_began_counts():
    assert crash_of(pod(lastState=ended(0)), SERVING)


@pytest.mark.parametrize("state", [ended(-5), ended(5, code=0, reason="Completed")])
def test_what_ended_before_it_served_or_ended_well_does_not_count(state):
    assert crash_of(pod(lastState=state), SERVING) == ""


def test_a_crash_while_nobody_is_served_counts_only_once_it_loops():
    assert crash_of(pod(lastState=ended(5)), None) == ""


def test_init_containers_count():
    sick = pod()
    sick["status"]["initContainerStatuses"] = [{"name": "init", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]
    assert "container init" in crash_of(sick, None)


def test_a_pod_that_was_ready_and_is_no_longer_is_a_crash():
    assert crash_of(pod(ready="False", changed=3), SERVING) == "pod checkout-abc-1 served and is no longer ready"


@pytest.mark.parametrize("young", [pod(ready="False", created=5, changed=5), pod(ready="False", changed=-50)])
def test_a_pod_that_never_served_may_be_unready(young):
    assert crash_of(young, SERVING) == ""


def test_a_pod_that_is_being_deleted_says_nothing():
    leaving = pod(ready="False", changed=3, lastState=ended(3))
    leaving["metadata"]["deletionTimestamp"] = at(2)
    assert crash_of(leaving, SERVING) == ""


@pytest.mark.parametrize("yes", ["True", "False"])
def test_a_pod_that_its_node_ends_says_nothing_either(yes):
    ending = pod(ready="False", changed=5, state=ended(6, 143))
    ending["status"] |= {"phase": "Failed", "reason": "Terminated"}
    ending["status"]["conditions"].append({"type": "DisruptionTarget", "status": yes, "reason": "TerminationByKubelet"})
    assert bool(crash_of(compact(PODS, ending), SERVING)) is (yes == "False")


def test_a_pod_without_times_or_conditions_is_no_crash():
    bare = {"metadata": {"name": "x"}, "status": {}}
    assert crash_of(bare, SERVING) == ""
    assert crash_of({"metadata": {"name": "x"}}, SERVING) == ""


def deployment(*, paused=None, managers=(), replicas=2, generation=3, **status):
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "checkout", "track": "canary"}}, "template": {}}
    if paused is not None:
        spec["paused"] = paused
    managed = [{"manager": name, "fieldsV1": {"f:spec": {"f:paused": {}}}} for name in managers]
    metadata = {"name": "checkout", "generation": generation, "managedFields": managed}
    counts = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    return {"metadata": metadata, "spec": spec, "status": {**counts, **status}}


def test_a_deployment_that_is_all_there_is_settled():
    view = version_view(deployment(), "abc", (), None)
    assert (view.exists, view.observed, view.settled, view.available, view.revision) == (True, True, True, 2, "abc")


def test_pods_that_are_still_leaving_are_counted_where_the_cluster_does():
    assert version_view(deployment(terminatingReplicas=2), "abc", (), None).leaving == 2
    assert version_view(deployment(), "abc", (), None).leaving == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 4},
        {"replicas": 3},
        {"updatedReplicas": 1},
        {"availableReplicas": 1},
        {"replicas": 0, "availableReplicas": 0, "updatedReplicas": 0},
    ],
)
def test_one_that_is_not_all_there_is_not_settled(changes):
    status = {key: value for key, value in changes.items() if key.endswith("Replicas")}
    spec = {key: value for key, value in changes.items() if key in {"generation", "replicas"}}
    assert not version_view(deployment(**spec, **status), "abc", (), None).settled


def test_a_missing_deployment_is_a_view_too():
    assert not version_view(None, "", (), None).exists


def test_a_pause_is_ours_only_where_our_manager_holds_the_field():
    ours, theirs = deployment(paused=True, managers=[PAUSE_MANAGER]), deployment(paused=True, managers=["kubectl"])
    assert version_view(ours, "", (), None).paused_by_us
    assert version_view(theirs, "", (), None).paused
    assert not version_view(theirs, "", (), None).paused_by_us


def test_the_first_crash_is_told():
    view = version_view(deployment(), "abc", [pod(), pod(lastState=ended(1), name="two")], SERVING)
    assert "pod two" in view.crash


def test_labels_of_both_selectors_tell_the_versions_apart():
    other = {"spec": {"selector": {"matchExpressions": [{"key": "colour", "operator": "In", "values": ["green"]}]}}}
    assert selector_labels(deployment(), other, None) == {"app", "track", "colour"}


def test_every_kind_of_selector_becomes_a_query():
    terms = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "old", "operator": "NotIn", "values": ["yes"]},
        {"key": "app", "operator": "Exists"},
        {"key": "gone", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"app": "x"}, "matchExpressions": terms}
    assert pod_selector({"spec": {"selector": selector}}) == "app=x,tier in (a,b),old notin (yes),app,!gone"


def test_only_pods_of_its_own_replica_sets_are_a_deployments():
    pods = [pod(owner="checkout-abc"), pod(owner="checkout-canary-abc"), {"metadata": {"name": "alone"}}]
    assert own_pods({"metadata": {"name": "checkout"}}, pods) == (pods[0],)
