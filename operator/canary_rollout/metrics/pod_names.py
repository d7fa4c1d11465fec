"""How pods are named: the ReplicaSet's name, a dash, five random characters."""

from typing import Final

ARM_LABEL: Final = "cr_arm"
"""Label that holds the first part of a pod's name in the answers, where versions are told apart by pod."""

POD_SUFFIX: Final = 5
LONGEST_POD_PREFIX: Final = 58
"""Kubernetes cuts the first part of a generated name to this, then adds the random characters
(k8s.io/apiserver/pkg/storage/names: MaxGeneratedNameLength)."""

PREFIX_PATTERN: Final = f"(.{{{LONGEST_POD_PREFIX}}}|.+-)[a-z0-9]{{{POD_SUFFIX}}}"
"""Takes a pod's name apart; a name of full length was cut, so its first part may end in anything."""
