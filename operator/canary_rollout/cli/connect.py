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
        _look(target)
        return await Client.from_kubeconfig(target.kubeconfig, context=target.context)
    except ConfigError as error:
        raise CliError(str(error), Exit.USAGE) from error
    except (yaml.YAMLError, ValueError, KeyError, OSError) as error:
        path = target.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        first = " ".join(str(error).split())[:200]
        raise CliError(
            f"the kubeconfig {path} cannot be read: {first}; mend it or pass --kubeconfig", Exit.USAGE
        ) from error


def _look(target: Target) -> None:
    """Say what is wrong with a kubeconfig in words of its own: the library's talk of Python.

    Raises:
        CliError: there is none, it names no context, or not the one that is asked for.
    """
    import yaml

    named = target.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    there = [file for file in files if file.is_file()]
    if not there:
        raise CliError(
            f"there is no kubeconfig at {', '.join(map(str, files))}: set KUBECONFIG or pass --kubeconfig", Exit.USAGE
        )
    read = [found for file in there if isinstance(found := yaml.safe_load(file.read_text(encoding="utf-8")), dict)]
    lists = [listed for found in read if isinstance(listed := found.get("contexts"), list)]
    contexts = [str(entry.get("name")) for listed in lists for entry in listed if isinstance(entry, dict)]
    wanted = target.context or next((found["current-context"] for found in read if found.get("current-context")), "")
    if wanted not in contexts:
        problem = f'has no context "{wanted}"' if wanted else "names no current context"
        have = f"it has {', '.join(contexts[:10])}" if contexts else "it has none at all"
        raise CliError(f"the kubeconfig {named} {problem}; {have}: pass --context or --kubeconfig", Exit.USAGE)


def _in_pod(target: Target) -> bool:
    """Whether to use the pod's own account: no kubeconfig was named and there is none, but there is an API server."""
    named = target.kubeconfig or target.context or os.environ.get("KUBECONFIG")
    return not named and "KUBERNETES_SERVICE_HOST" in os.environ and not Path("~/.kube/config").expanduser().exists()
