"""A real Prometheus that finds the cluster's pods by itself."""

import asyncio
import re
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from .addresses import listen_address
from .client import KubeClient, Manifest
from .errors import LocalClusterError
from .ports import free_port
from .process import ChildProcess, ProcessTable

NAMESPACE = "monitoring"
SERVICE_ACCOUNT = "prometheus"
START_SECONDS = 60.0
POLL_SECONDS = 0.05

MANIFESTS: Sequence[Manifest] = (
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SERVICE_ACCOUNT, "namespace": NAMESPACE}},
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "local-prometheus"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "local-prometheus"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "local-prometheus"},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}],
    },
)


def duration(seconds: float) -> str:
    """Write seconds as Prometheus does, in whole milliseconds."""
    return f"{round(seconds * 1000)}ms"


def by_api(kubeconfig: Path) -> Manifest:
    """Discover pods through the API server (Prometheus' own Kubernetes discovery)."""
    return {"kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}]}


def by_file(targets: Path) -> Manifest:
    """Discover pods from the file that :func:`target_groups` fills, for a Prometheus built without the above."""
    return {"file_sd_configs": [{"files": [str(targets)], "refresh_interval": "5s"}]}


def target_groups(pods: Iterable[Manifest]) -> list[Manifest]:
    """Return pods as Kubernetes discovery would present them, in the form of a file_sd file."""
    return [_target_group(pod) for pod in pods if (pod.get("status") or {}).get("podIP")]


def _target_group(pod: Manifest) -> Manifest:
    metadata, status = pod["metadata"], pod["status"]
    meta = "__meta_kubernetes_"
    labels = {
        f"{meta}namespace": metadata["namespace"],
        f"{meta}pod_name": metadata["name"],
        f"{meta}pod_uid": metadata["uid"],
        f"{meta}pod_ip": status["podIP"],
        f"{meta}pod_phase": status.get("phase", ""),
        f"{meta}pod_node_name": pod["spec"].get("nodeName", ""),
    }
    for kind in ("label", "annotation"):
        for name, value in (metadata.get(f"{kind}s") or {}).items():
            labels[f"{meta}pod_{kind}_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}"] = value
    return {"targets": [status["podIP"]], "labels": labels}


def pod_scrape_config(discovery: Manifest, scrape_interval: float) -> Manifest:
    """Return the job that scrapes annotated pods, found by :func:`by_api` or :func:`by_file`.

    ``prometheus.io/scrape: "true"``, ``prometheus.io/port``, ``prometheus.io/path`` as everybody writes them; labels
    ``namespace``, ``pod``, ``node`` and all pod labels. The address is the pod's, mapped to where it listens.
    """
    annotation = "__meta_kubernetes_pod_annotation_prometheus_io_"
    return {
        "job_name": "pods",
        "scrape_interval": duration(scrape_interval),
        "scrape_timeout": duration(scrape_interval),
        **discovery,
        "relabel_configs": [
            {"source_labels": [f"{annotation}scrape"], "action": "keep", "regex": "true"},
            {"source_labels": ["__meta_kubernetes_pod_phase"], "action": "drop", "regex": "Succeeded|Failed"},
            # Before it is bound and has an address there is nothing to scrape.
            {"source_labels": ["__meta_kubernetes_pod_ip"], "action": "keep", "regex": ".+"},
            # 10.a.b.c:PORT -> 127.a.b.c:PORT
            {
                "source_labels": ["__meta_kubernetes_pod_ip", f"{annotation}port"],
                "regex": r"10\.(.+);(\d+)",
                "replacement": f"{listen_address('10.0.0.0').split('.')[0]}.$1:$2",
                "target_label": "__address__",
            },
            {"source_labels": [f"{annotation}path"], "regex": "(.+)", "target_label": "__metrics_path__"},
            {"action": "labelmap", "regex": "__meta_kubernetes_pod_label_(.+)"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"source_labels": ["__meta_kubernetes_pod_node_name"], "target_label": "node"},
        ],
    }


def static_scrape_config(
    job: str, targets: Sequence[str], scrape_interval: float, labels: Mapping[str, str] | None = None
) -> Manifest:
    """Return a job with fixed targets (``host:port``)."""
    return {
        "job_name": job,
        "scrape_interval": duration(scrape_interval),
        "scrape_timeout": duration(scrape_interval),
        "static_configs": [{"targets": list(targets), "labels": dict(labels or {})}],
    }


class Prometheus:
    """One Prometheus server process; needs no cluster when it only has static targets.

    Args:
        binary: the server.
        directory: for configuration, data and log.
        table: where the process is registered.
        scrape_interval: seconds; also the evaluation interval.
        scrape_configs: the jobs.
        rule_files: recording and alerting rules.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path,
        table: ProcessTable,
        *,
        scrape_interval: float = 1.0,
        scrape_configs: Sequence[Manifest] = (),
        rule_files: Sequence[Path] = (),
    ) -> None:
        self._binary = binary
        self._table = table
        self.directory = directory
        self.scrape_interval = scrape_interval
        self.scrape_configs = list(scrape_configs)
        self.rule_files = list(rule_files)
        self.port = free_port()
        self.process: ChildProcess | None = None

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Log file."""
        return self.directory / "prometheus.log"

    def configuration(self) -> Manifest:
        """Return what is written to ``prometheus.yml``."""
        interval = duration(self.scrape_interval)
        return {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(path) for path in self.rule_files],
            "scrape_configs": self.scrape_configs,
        }

    async def start(self) -> None:
        """Start it (again) on the same port and data, and return when it is ready.

        Raises:
            ProcessFailedError: it ended by itself.
            LocalClusterError: it was not ready in time.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(self.configuration(), sort_keys=False))
        self.process = self._table.start(
            [
                str(self._binary),
                f"--config.file={config}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                "--storage.tsdb.retention.time=2d",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--web.enable-lifecycle",
                # Hidden, and 5 s by default: how long a new pod waits before it is scraped.
                "--scrape.discovery-reload-interval=1s",
                "--log.level=warn",
            ],
            name="prometheus",
            cwd=self.directory,
            log=self.log,
        )
        await self._wait_ready()

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                try:
                    async with session.get(f"{self.url}/-/ready") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass  # not listening yet
                if self.process is not None and self.process.returncode is not None:
                    raise self.process.failure("ended while starting")
                if time.monotonic() > deadline:
                    raise LocalClusterError(f"Prometheus was not ready after {START_SECONDS:g} s; see {self.log}")
                await asyncio.sleep(POLL_SECONDS)

    async def reload(self) -> None:
        """Write the configuration again (after a change of ``scrape_configs``) and have it taken over."""
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(self.configuration(), sort_keys=False))
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.post(f"{self.url}/-/reload") as response,
        ):
            if response.status != 200:
                raise LocalClusterError(f"Prometheus refused its configuration: {await response.text()}")

    async def stop(self) -> None:
        """Stop it; :meth:`start` continues with its data."""
        if self.process is not None:
            await self.process.stop(5.0)
            self.process = None

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        if self.process is not None:
            self.process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after :meth:`freeze`."""
        if self.process is not None:
            self.process.send(signal.SIGCONT)

    async def query(self, promql: str, *, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Run an instant query; returns labels and value of each series (one without labels for a scalar)."""
        parameters = {"query": promql} | ({"time": str(at)} if at is not None else {})
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.post(f"{self.url}/api/v1/query", data=parameters) as response,
        ):
            answer: dict[str, Any] = await response.json()
        if answer["status"] != "success":
            raise LocalClusterError(f"query {promql!r} failed: {answer.get('error')}")
        result = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            return [({}, float(result[1]))]
        return [(series["metric"], float(series["value"][1])) for series in result]


async def prepare_access(client: KubeClient) -> str:
    """Create Prometheus' ServiceAccount and rights; returns its token."""
    for manifest in MANIFESTS:
        await client.apply(manifest)
    return await client.service_account_token(NAMESPACE, SERVICE_ACCOUNT, seconds=30 * 86_400)
