"""Reads CanaryRollouts, and says in one sentence why one cannot be read."""

from difflib import get_close_matches

from canary_rollout.cli.errors import CliError
from canary_rollout.cli.session import Connection
from canary_rollout.kube.port import CANARY_ROLLOUTS, ApiError, ForbiddenError, NotFoundError, Object

NO_CRD = (
    "this cluster knows no CanaryRollout: the operator is not installed; "
    "`kubectl apply --server-side -k manifests` in its repository installs it, or pick another cluster with --context"
)


async def get_rollout(connection: Connection, name: str) -> Object:
    """The CanaryRollout ``name`` of the session's namespace.

    Raises:
        CliError: there is none; names those that come close, also in other namespaces.
    """
    try:
        return await connection.api.get(CANARY_ROLLOUTS, connection.namespace, name)
    except NotFoundError as error:
        raise await _missing(connection, name) from error


async def list_rollouts(connection: Connection, *, everywhere: bool) -> list[Object]:
    """All CanaryRollouts of the session's namespace, or of all namespaces, by namespace and name."""
    try:
        found, _ = await connection.api.list_all(CANARY_ROLLOUTS, None if everywhere else connection.namespace)
    except NotFoundError as error:
        raise CliError(NO_CRD) from error
    return sorted(found, key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"]))


async def _missing(connection: Connection, name: str) -> CliError:
    """Why ``name`` was not found."""
    try:
        here = await list_rollouts(connection, everywhere=False)
    except ForbiddenError:
        return CliError(f'there is no CanaryRollout "{name}" in namespace {connection.namespace}')
    except CliError as error:
        return error
    try:
        everywhere = await list_rollouts(connection, everywhere=True)
    except ApiError:
        everywhere = here  # only a better hint is lost
    return CliError(
        f'there is no CanaryRollout "{name}" in namespace {connection.namespace}'
        f"{_hint(name, connection.namespace, here, everywhere)}"
    )


def _hint(name: str, namespace: str, here: list[Object], everywhere: list[Object]) -> str:
    """What to try instead, as the end of a sentence."""
    names = [item["metadata"]["name"] for item in here]
    if close := get_close_matches(name, names, n=3):
        return f"; did you mean {' or '.join(close)}?"
    elsewhere = {item["metadata"]["namespace"] for item in everywhere if item["metadata"]["name"] == name} - {namespace}
    if elsewhere:
        return f"; there is one in {', '.join(sorted(elsewhere))}: add -n {min(elsewhere)}"
    if names:
        return f"; there are: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"
    return ", nor any other; `kubectl canary list -A` shows those of all namespaces"
