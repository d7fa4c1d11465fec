"""What can go wrong in the local cluster, by kind."""

from canary_rollout.errors import CanaryRolloutError


class LocalClusterError(CanaryRolloutError):
    """Something of the local cluster could not be started, reached or built."""


class BuildError(LocalClusterError):
    """A Go program could not be built; the message ends with the compiler's last lines."""


class ToolMissingError(LocalClusterError):
    """A program is neither in this environment, nor on PATH, nor installable from PyPI."""


class ProcessFailedError(LocalClusterError):
    """A part of the cluster ended by itself; the message names its log file and last lines."""


class ApiError(LocalClusterError):
    """The API server answered with an error.

    Attributes:
        status: HTTP status code.
        reason: machine-readable reason of the Kubernetes ``Status`` object (``NotFound``, ``Conflict`` …).
        body: the whole ``Status`` object, or ``{}`` when the answer was none.
    """

    def __init__(self, status: int, reason: str, message: str, body: dict[str, object]) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.body = body


class ImageUnknownError(LocalClusterError):
    """A container's image has no command in the node's registry."""


class VolumeNotReadyError(LocalClusterError):
    """A volume cannot be mounted yet (its ConfigMap or Secret does not exist) or is of a kind the node lacks."""


class ContainerConfigError(LocalClusterError):
    """A container's env refers to something that does not exist, or a field the node does not support."""
