"""Opens the cluster of a :class:`Target` with the real client."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.session import Connection, Target
from canary_rollout.kube.client import Client, ConfigError


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Connection]:
    """Connect as kubectl would; inside a pod without a kubeconfig, as the pod's service account.

    Raises:
        CliError: the kubeconfig is missing, broken, or lacks the context.
    """
    client = await _client(target)
    try:
        yield Connection(client, target.namespace or client.namespace)
    finally:
        await client.close()


async def _client(target: Target) -> Client:
    import yaml

    try:
        if _in_pod(target):
            return Client.in_cluster()
        return await Client.from_kubeconfig(target.kubeconfig, context=target.context)
    except ConfigError as error:
        raise CliError(str(error), Exit.USAGE) from error
    except (yaml.YAMLError, ValueError, KeyError) as error:
        path = target.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        first = " ".join(str(error).split())[:200]
        raise CliError(
            f"the kubeconfig {path} cannot be read: {first}; mend it or pass --kubeconfig", Exit.USAGE
        ) from error


def _in_pod(target: Target) -> bool:
    """Whether to use the pod's own account: no kubeconfig was named and there is none, but there is an API server."""
    named = target.kubeconfig or target.context or os.environ.get("KUBECONFIG")
    return not named and "KUBERNETES_SERVICE_HOST" in os.environ and not Path("~/.kube/config").expanduser().exists()
