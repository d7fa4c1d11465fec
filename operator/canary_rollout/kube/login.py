"""How the API server is reached, and as whom: a kubeconfig, or the service account of a pod.

``kubernetes`` itself is imported when it is needed: it costs half a second and 24 MB.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from yaml import YAMLError

from canary_rollout.errors import CanaryRolloutError


class ConfigError(CanaryRolloutError):
    """There is no usable kubeconfig, or the process does not run in a pod."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the API server, for clients that are not ours (kopf, kubectl). Never log it."""

    server: str
    ca_path: str | None
    verify: bool
    authorization: str | None
    certificate_path: str | None
    key_path: str | None
    proxy: str | None


@dataclass(frozen=True, slots=True)
class Login:
    """What a client is made of.

    Attributes:
        configuration: the library's own, with address and credentials.
        namespace: of the kubeconfig's context, or of the pod.
        again: reads the credentials anew, or raises ConfigError; ``None`` where the library does so by itself.
    """

    configuration: Any
    namespace: str
    again: Callable[[], Awaitable[None]] | None = None


async def by_kubeconfig(path: str | None = None, *, context: str | None = None) -> Login:
    """Log in as kubectl would: ``path``, else ``KUBECONFIG``, else the default file.

    Raises:
        ConfigError: the file is missing or says nothing usable.
    """
    from kubernetes.aio import config  # noqa: PLC0415

    configuration = _configuration()
    # The library reads KUBECONFIG once, when it is imported; the variable may have been set since.
    source = path or os.environ.get("KUBECONFIG") or config.KUBE_CONFIG_DEFAULT_LOCATION

    async def load() -> Any:
        try:
            return await config.load_kube_config(
                config_file=source, context=context, client_configuration=configuration, persist_config=False
            )
        except (config.ConfigException, OSError, TypeError, AttributeError, ValueError, YAMLError) as error:
            # TypeError, AttributeError: how the library says that no file was found.
            raise ConfigError(
                f"no usable kubeconfig at {source}: {error}; set KUBECONFIG or pass --kubeconfig"
            ) from error

    loader = await load()
    namespace = loader.current_context.get("context", {}).get("namespace") or "default"

    async def again() -> None:
        await load()  # the file itself: tokens and certificates in it are replaced by a new file

    return Login(configuration, f"{namespace}", again)


def by_service_account() -> Login:
    """Log in with the pod's service account; its token is read again every minute.

    Raises:
        ConfigError: the process does not run in a pod.
    """
    from kubernetes.aio import config  # noqa: PLC0415
    from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME  # noqa: PLC0415

    configuration = _configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
        with open(os.path.join(os.path.dirname(SERVICE_TOKEN_FILENAME), "namespace"), encoding="utf-8") as file:  # noqa: PTH118, PTH120, PTH123
            namespace = file.read().strip()
    except (config.ConfigException, OSError) as error:
        raise ConfigError(f"this process does not run in a pod: {error}; pass --kubeconfig") from error
    return Login(configuration, namespace)


def _configuration() -> Any:
    """A configuration of its own (the library's default is shared by the process)."""
    from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415

    configuration = Configuration()
    # Looking the proxy variables up costs more than the rest of a call; do it only where there are any.
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"))
    configuration.client_session_kwargs = {"trust_env": proxied}
    return configuration
