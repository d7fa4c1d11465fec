"""Deployments and pods as the engine wants to see them. Pure: objects in, a VersionView out."""

from collections.abc import Iterable
from typing import Any, Final

from canary_rollout.engine.observation import VersionView
from canary_rollout.kube.port import FIELD_MANAGER, Object
from canary_rollout.model.revision import revision_of
from canary_rollout.model.units import UnitError, parse_instant

PAUSE_MANAGER: Final = f"{FIELD_MANAGER}-pause"
"""Field manager under which ``spec.paused`` is held, so that giving it back is giving up one field and nothing else."""
_STUCK: Final = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)


def selector_labels(*deployments: Object | None) -> frozenset[str]:
    """Names of the labels by which any of these Deployments selects its pods; they tell versions apart for good."""
    selectors = [(deployment or {}).get("spec", {}).get("selector", {}) for deployment in deployments]
    by_value = (name for selector in selectors for name in selector.get("matchLabels") or {})
    by_term = (term["key"] for selector in selectors for term in selector.get("matchExpressions") or ())
    return frozenset((*by_value, *by_term))


def pod_selector(deployment: Object) -> str:
    """The Deployment's selector as a label query of the API."""
    selector = deployment.get("spec", {}).get("selector", {})
    terms = [f"{name}={value}" for name, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        name, values = term["key"], ",".join(term.get("values") or ())
        terms.append(
            {
                "In": f"{name} in ({values})",
                "NotIn": f"{name} notin ({values})",
                "Exists": name,
                "DoesNotExist": f"!{name}",
            }[term["operator"]]
        )
    return ",".join(terms)


def own_pods(deployment: Object, pods: Iterable[Object]) -> tuple[Object, ...]:
    """Those of ``pods`` that belong to the Deployment: stable's selector may well find the canary's pods too."""
    name = deployment["metadata"]["name"]
    return tuple(pod for pod in pods if any(owner.rpartition("-")[0] == name for owner in replica_sets_of(pod)))


def replica_sets_of(pod: Object) -> list[str]:
    """Names of the ReplicaSets that own a pod; a Deployment names them after itself and a hash without a dash."""
    owners = pod["metadata"].get("ownerReferences", ())
    return [owner["name"] for owner in owners if owner.get("kind") == "ReplicaSet"]


def app_version(deployment: Object | None) -> str:
    """Return the version that a Deployment's pod template is labelled with; empty where it has no such label."""
    template = (deployment or {}).get("spec", {}).get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    return str(labels.get("app.kubernetes.io/version") or labels.get("version") or "")


def deployment_revision(deployment: Object, labels: frozenset[str], identity_paths: tuple[str, ...]) -> str:
    """Hash of what a Deployment's pod template is about; ``labels`` as :func:`selector_labels` of *both* versions."""
    return revision_of(deployment["spec"]["template"], labels, identity_paths)


def version_view(
    deployment: Object | None,
    revision: str,
    pods: Iterable[Object],
    serving_since: float | None,
    *,
    may_be_empty: bool = False,
) -> VersionView:
    """One version as the cluster reports it.

    Args:
        deployment: the Deployment, ``None`` when it does not exist.
        revision: its revision (hashing is the caller's, who remembers it by resourceVersion).
        pods: its pods; only looked at for what is wrong with them.
        serving_since: POSIX seconds since which this revision has traffic; ``None``: it has none yet.
        may_be_empty: whether it is settled without any pods as well.
    """
    if deployment is None:
        return VersionView()
    spec, status = deployment.get("spec", {}), deployment.get("status", {})
    replicas = int(spec.get("replicas", 1))
    observed = int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 0))
    counts = {int(status.get(name, 0)) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return VersionView(
        exists=True,
        revision=revision,
        replicas=replicas,
        available=int(status.get("availableReplicas", 0)),
        observed=observed,
        settled=observed and (replicas > 0 or may_be_empty) and counts == {replicas},
        leaving=int(status.get("terminatingReplicas") or 0),
        paused=bool(spec.get("paused", False)),
        paused_by_us=holds_pause(deployment),
        crash=next((found for pod in pods if (found := crash_of(pod, serving_since))), ""),
    )


def holds_pause(deployment: Object) -> bool:
    """Whether ``spec.paused`` is ours."""
    return any(
        entry.get("manager") == PAUSE_MANAGER and "f:paused" in (entry.get("fieldsV1", {}).get("f:spec") or {})
        for entry in deployment["metadata"].get("managedFields", ())
    )


def crash_of(pod: Object, serving_since: float | None) -> str:
    """What is wrong with a pod, in a few words; empty if nothing.

    While a revision serves, any container that ended badly since then counts, and so does a pod that was ready and no
    longer is. A pod that is being deleted (scaled down, evicted) says nothing about the revision, and neither does one that
    its node ends (a shutdown, a full disk): it is not deleted and fails as if it had crashed.
    """
    metadata, status = pod["metadata"], pod.get("status", {})
    if metadata.get("deletionTimestamp") or _disrupted(status):
        return ""
    name = metadata["name"]
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {}).get("reason", "")
        ended = _ended_badly(container, serving_since)
        if waiting in _STUCK or ended:
            restarts = f", {container.get('restartCount', 0)} restarts" if container.get("restartCount") else ""
            words = ", ".join(word for word in (waiting, ended) if word)
            return f"pod {name}, container {container.get('name', '?')}: {words}{restarts}"
    if serving_since is not None and _no_longer_ready(metadata, status, serving_since):
        return f"pod {name} served and is no longer ready"
    return ""


def _disrupted(status: dict[str, Any]) -> bool:
    """Whether the cluster ends the pod (Kubernetes, "Disruptions", pod disruption conditions)."""
    return any(
        item.get("type") == "DisruptionTarget" and item.get("status") == "True" for item in status.get("conditions", ())
    )


def _ended_badly(container: dict[str, Any], serving_since: float | None) -> str:
    for state in (container.get("state", {}), container.get("lastState", {})):
        ended = state.get("terminated")
        if not ended or serving_since is None or int(ended.get("exitCode", 0)) == 0:
            continue
        if _instant(ended.get("finishedAt")) >= int(serving_since):
            reason = ended.get("reason") or "Error"
            return f"{reason} (exit code {ended['exitCode']})"
    return ""


def _no_longer_ready(metadata: dict[str, Any], status: dict[str, Any], serving_since: float) -> bool:
    """Pods that exist when traffic begins are all ready then; one of them that is not any more has turned bad."""
    ready = next((item for item in status.get("conditions", ()) if item.get("type") == "Ready"), None)
    if (
        ready is None
        or ready.get("status") == "True"
        or _instant(metadata.get("creationTimestamp")) >= int(serving_since)
    ):
        return False
    return _instant(ready.get("lastTransitionTime")) >= int(serving_since)


def _instant(value: object) -> float:
    """POSIX seconds of a timestamp of the API (whole seconds there); 0.0 when it is missing."""
    try:
        return parse_instant(value)
    except UnitError:
        return 0.0
