"""What the operator process is told from outside: flags, each with an environment variable."""

import os
import socket
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from canary_rollout.controller.logs import Format

_LEVELS: Final = ("debug", "info", "warning", "error")
_FORMATS: Final = ("auto", "json", "console")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one operator process.

    Attributes:
        kubeconfig: path; empty: the pod's own service account, or what kubectl would use outside of a pod.
        namespace: where the Lease lives.
        lease: name of the Lease.
        identity: this pod; the same after a restart of its container.
        watch_namespaces: restrict the operator to these; empty for the whole cluster.
        host: address of the health and metrics pages.
        port: their port.
        presets_dir: directory with preset sets (``*.yaml``) for everybody; empty: none.
        log_level: debug, info, warning or error.
        log_format: json, console, or auto (console on a terminal).
    """

    kubeconfig: str
    namespace: str
    lease: str
    identity: str
    watch_namespaces: tuple[str, ...]
    host: str
    port: int
    presets_dir: str
    log_level: str
    log_format: Format


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the command line; what it does not say comes from the environment."""
    get = environment.get
    parser = ArgumentParser(prog="canary-rollout-operator", description="Moves traffic to new versions, and back.")
    parser.add_argument("--kubeconfig", default=get("KUBECONFIG", ""), help="default: the pod's service account")
    parser.add_argument("--namespace", default=get("POD_NAMESPACE", ""), help="namespace of the Lease")
    parser.add_argument("--lease", default=get("LEASE_NAME", "canary-rollout-operator"), help="name of the Lease")
    parser.add_argument("--identity", default=get("POD_NAME", socket.gethostname()), help="holder of the Lease")
    parser.add_argument(
        "--watch-namespaces", default=get("WATCH_NAMESPACES", ""), help="comma-separated; default: the whole cluster"
    )
    parser.add_argument("--host", default=get("BIND_ADDRESS", "0.0.0.0"), help="address of health and metrics")
    parser.add_argument("--port", type=int, default=get("PORT", "8080"), help="port of health and metrics")
    parser.add_argument("--presets-dir", default=get("PRESETS_DIR", ""), help="preset sets (*.yaml) for everybody")
    parser.add_argument("--log-level", default=get("LOG_LEVEL", "info"), choices=_LEVELS)
    parser.add_argument("--log-format", default=get("LOG_FORMAT", "auto"), choices=_FORMATS)
    given = parser.parse_args(arguments)
    for name, choices in (("log_level", _LEVELS), ("log_format", _FORMATS)):
        if getattr(given, name) not in choices:  # argparse does not look at what came from the environment
            flag = name.replace("_", "-")
            parser.error(f"{name.upper()} (--{flag}) is {getattr(given, name)!r}: choose one of {', '.join(choices)}")
    return Settings(
        kubeconfig=given.kubeconfig,
        namespace=given.namespace,
        lease=given.lease,
        identity=given.identity,
        watch_namespaces=tuple(name for name in (part.strip() for part in given.watch_namespaces.split(",")) if name),
        host=given.host,
        port=given.port,
        presets_dir=given.presets_dir,
        log_level=given.log_level,
        log_format=given.log_format,
    )
