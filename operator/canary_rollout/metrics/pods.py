"""Pods of a Deployment's revision by their names: the ReplicaSet's name, a dash, five random characters."""

from typing import Final

from canary_rollout.metrics.request import VersionArm

ARM_LABEL: Final = "cr_arm"
"""Label that holds the first part of a pod's name in the answers, where versions are told apart by pod."""

POD_SUFFIX: Final = 5
LONGEST_POD_PREFIX: Final = 58
"""Kubernetes cuts the first part of a generated name to this, then adds the random characters
(k8s.io/apiserver/pkg/storage/names: MaxGeneratedNameLength)."""

PREFIX_PATTERN: Final = f"(.{{{LONGEST_POD_PREFIX}}}|.+-)[a-z0-9]{{{POD_SUFFIX}}}"
"""Takes a pod's name apart; a name of full length was cut, so its first part may end in anything."""


def arm_value(replica_set: str) -> str:
    """Return what the pods of a ReplicaSet have in :data:`ARM_LABEL`: its name and a dash, cut off as Kubernetes does."""
    return f"{replica_set}-"[:LONGEST_POD_PREFIX]


def pod_pattern(arm: VersionArm) -> str:
    """Return a regular expression for the pods of a version; dots as ``[.]``, which is the same in every kind of quotes.

    With no pods at all it matches nothing.
    """
    if arm.pods:
        return "|".join(sorted(name.replace(".", "[.]") for name in arm.pods))
    if not arm.replica_sets:
        return "no-pods-yet[.]"  # a pod's name ends in a letter or digit
    prefixes = sorted(arm_value(name).replace(".", "[.]") for name in arm.replica_sets)
    return f"({'|'.join(prefixes)})[a-z0-9]{{{POD_SUFFIX}}}"
