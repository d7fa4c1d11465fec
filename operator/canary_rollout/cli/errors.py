"""How the command line ends when something is wrong: one sentence and an exit code, never a traceback."""

from enum import IntEnum

from canary_rollout.errors import CanaryRolloutError


class Exit(IntEnum):
    """Exit codes, documented in docs/commands.md."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class CliError(CanaryRolloutError):
    """Something a person must know, with the exit code it ends in."""

    def __init__(self, message: str, code: Exit = Exit.REFUSED) -> None:
        super().__init__(message)
        self.code = code


def explain(error: CanaryRolloutError) -> tuple[str, Exit]:
    """The sentence and the exit code for any error this project raises on purpose."""
    if isinstance(error, CliError):
        return str(error), error.code
    # Only an error from the Kubernetes API can be of these kinds, so the module is loaded by now.
    from canary_rollout.kube.port import ApiError, ForbiddenError, UnavailableError

    if isinstance(error, UnavailableError):
        sentence = f"the Kubernetes API server did not answer ({error}); check --context and the network, then repeat"
        return sentence, Exit.UNREACHABLE
    if isinstance(error, ForbiddenError):
        if error.status == 401:
            return (
                f"your Kubernetes user is not accepted ({error}); log in again, or pick another --context",
                Exit.REFUSED,
            )
        need = "whoever may view a namespace may look at its rollouts, whoever may edit it may command them"
        return (
            f"your Kubernetes user lacks a right ({error}); {need}: ask for the ClusterRole view or edit",
            Exit.REFUSED,
        )
    if isinstance(error, ApiError):
        return f"the Kubernetes API server refused: {error}", Exit.REFUSED
    return str(error), Exit.REFUSED
