"""Pods of a Deployment's revision by their names: the ReplicaSet's name, a dash, five random characters."""

from canary_rollout.metrics.pod_names import ARM_LABEL, LONGEST_POD_PREFIX, POD_SUFFIX, PREFIX_PATTERN
from canary_rollout.metrics.request import VersionArm

__all__ = ["ARM_LABEL", "LONGEST_POD_PREFIX", "POD_SUFFIX", "PREFIX_PATTERN", "arm_value", "pod_pattern"]


def arm_value(replica_set: str) -> str:
    """Return what the pods of a ReplicaSet have in :data:`ARM_LABEL`: its name and a dash, cut off as Kubernetes does."""
    return f"{replica_set}-"[:LONGEST_POD_PREFIX]


def pod_pattern(arm: VersionArm) -> str:
    """Return a regular expression for the pods of a version; dots as ``[.]``, which is the same in every kind of quotes.

    With no pods at all it matches nothing.
    """
    if arm.any_revision:
        # A ReplicaSet's name is its Deployment's and a hash of up to ten characters; so shop-.* would take shop-canary too.
        return f"{arm.deployment.replace('.', '[.]')}-[a-z0-9]{{1,10}}-[a-z0-9]{{{POD_SUFFIX}}}"
    if arm.pods:
        return "|".join(sorted(name.replace(".", "[.]") for name in arm.pods))
    if not arm.replica_sets:
        return "no-pods-yet[.]"  # a pod's name ends in a letter or digit
    prefixes = sorted(arm_value(name).replace(".", "[.]") for name in arm.replica_sets)
    return f"({'|'.join(prefixes)})[a-z0-9]{{{POD_SUFFIX}}}"
