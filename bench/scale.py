"""N active rollouts on a real API server: what one operator costs, and how fast all of them come down.

`python bench/scale.py --rollouts 500 [--minutes 10] [--plain] [--json FILE]`. What runs is what somebody gets who installs it: the
comparison is on and the standard halt rules count (two of them changed). `--plain` switches both off and leaves two thresholds.
The operator is the real process under its own
ServiceAccount and the RBAC of manifests/; calls are counted by the API server's audit log. What is on paper is said in
scale_parts.py. Every rollout is held at a stage with 10 s checks.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from scale_parts import PaperNode, PaperPrometheus, PaperProxies

from canary_rollout.kube.client import Client
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    REPLICA_SETS,
    SERVICES,
    Resource,
)
from canary_rollout.local.build import ensure_controlplane
from canary_rollout.local.controlplane import ControlPlane
from canary_rollout.local.ports import free_port
from canary_rollout.local.process import ProcessTable
from canary_rollout.local.tools import ensure_tool

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = "canary-rollout-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:canary-rollout-operator"
AT_ONCE = 24
RELEASED_AT_ONCE = 100
TICKS = os.sysconf("SC_CLK_TCK")
LEASE_LOST = 3
"""Exit code of an operator that gave up its Lease."""
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""The operator runs from compiled files, as in its image."""
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")


def objects(count: int, per_namespace: int, url: str, *, plain: bool) -> list[tuple[Resource, str, dict]]:
    """Everything the rollouts refer to, and the rollouts."""
    made: list[tuple[Resource, str, dict]] = []
    for number in range(count):
        namespace, name = f"team-{number // per_namespace:03d}", f"app-{number:05d}"
        for deployment in (name, f"{name}-canary"):
            labels = {"app": deployment}
            template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app:v1"}]}}
            spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
            made.append((DEPLOYMENTS, namespace, _object(DEPLOYMENTS, deployment, spec=spec)))
            made.append((SERVICES, namespace, _service(deployment)))
        proxy = f"proxy-{name}"
        made.append((SERVICES, namespace, _service(proxy)))
        endpoint = {
            "addresses": [f"10.245.{number // 250 % 250}.{number % 250 + 1}"],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "name": proxy, "namespace": namespace},
        }
        slice_ = _object(ENDPOINT_SLICES, proxy, addressType="IPv4", endpoints=[endpoint], ports=[{"port": 8080}])
        slice_["metadata"]["labels"] = {"kubernetes.io/service-name": proxy}
        made.append((ENDPOINT_SLICES, namespace, slice_))
        made.append((CANARY_ROLLOUTS, namespace, _rollout(name, proxy, url, plain=plain)))
    return made


def _object(resource: Resource, name: str, **parts: object) -> dict:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **parts}


def _service(name: str) -> dict:
    # Without a selector: nobody but this benchmark writes its endpoints.
    return _object(SERVICES, name, spec={"ports": [{"name": "http", "port": 80, "targetPort": 8080}]})


def _rollout(name: str, proxy: str, url: str, *, plain: bool) -> dict:
    stages = [{"name": "held", "weight": "5%", "hold": "10h"}, {"name": "all", "weight": "100%", "hold": "1h"}]
    rules = [
        {"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "0s", "action": "Rollback"},
        {"name": "p99", "preset": "latency-p99", "aboveRatio": "5", "for": "10m", "action": "Pause"},
    ]
    return _object(
        CANARY_ROLLOUTS,
        name,
        spec={
            "workload": {
                "stable": {"service": name, "deployment": name},
                "canary": {"service": f"{name}-canary", "deployment": f"{name}-canary"},
            },
            "traffic": {"nginx": {"service": proxy}},
            "metrics": {"prometheus": url, "interval": "10s", "window": "1m"},
            "stages": stages,
            "haltRules": rules,
            **({"defaultHaltRules": False, "analysis": {"enabled": False}} if plain else {}),
        },
    )


async def in_parallel(work: list) -> None:
    """Run coroutines, some at a time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(coroutine: object) -> None:
        async with free:
            await coroutine

    await asyncio.gather(*(one(coroutine) for coroutine in work))


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Running:
    """The operator's process. When it gives up its Lease it is started again, as its container would be, and that is counted."""

    def __init__(self, command: list[str], log: object) -> None:
        self._command, self._log = command, log
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and keep it running."""
        self.process = await self._new()
        self._task = asyncio.create_task(self._supervise())

    async def _new(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(*self._command, stdout=self._log, stderr=self._log, env=ENVIRONMENT)

    async def _supervise(self) -> None:
        while await self.process.wait() == LEASE_LOST:
            self.restarts += 1
            say("the operator gave up its Lease (no answer to a renewal for 10 s) and is started again")
            self.process = await self._new()

    async def end(self) -> None:
        """Stop it for good."""
        self._task.cancel()
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()


class Usage:
    """CPU seconds and resident memory of the operator; ends the benchmark when the operator has ended."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def _pid(self) -> int:
        return self._running.process.pid

    def check(self) -> None:
        """Whatever ends it but the loss of its Lease is not what is measured here."""
        if self._running.process.returncode not in {None, LEASE_LOST}:
            code = self._running.process.returncode
            raise SystemExit(f"the operator has ended with exit code {code}; --log FILE keeps its log")

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self) -> float:
        """Megabytes (10^6)."""
        return (
            int(Path(f"/proc/{self._pid}/statm").read_text(encoding="ascii").split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 1e6
        )


def histogram(port: int, name: str, queue: str) -> dict[float, float]:
    """Cumulative counts by upper bound of a histogram of the operator's /metrics."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    pattern = re.compile(rf'^{name}_bucket{{.*?le="([^"]+)".*?}} ([0-9.e+]+)$', re.MULTILINE)
    found: dict[float, float] = {}
    for line in pattern.finditer(text):
        if f'queue="{queue}"' in line[0]:
            found[float(line[1])] = float(line[2])
    return found


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Upper bound of the bucket in which the quantile lies, seconds."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = max(counts.values(), default=0.0)
    return next((bound for bound, count in counts.items() if total and count >= share * total), float("nan"))


async def prepare(controlplane: ControlPlane, admin: Client, arguments: argparse.Namespace, url: str) -> Path:
    """CRD, RBAC, namespaces, objects; the operator's kubeconfig."""
    kubeconfig = controlplane.kubeconfig(controlplane.directory / "kubeconfig")
    kubectl = str(await ensure_tool("kubectl"))
    apply = await asyncio.create_subprocess_exec(
        kubectl,
        "--kubeconfig",
        str(kubeconfig),
        "apply",
        "--server-side",
        "-k",
        str(ROOT / "manifests"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await apply.wait():
        raise SystemExit("the manifests could not be applied")
    names = [f"team-{number:03d}" for number in range((arguments.rollouts - 1) // arguments.per_namespace + 1)]
    await in_parallel([admin.create(NAMESPACES, None, _object(NAMESPACES, name)) for name in names])
    made = objects(arguments.rollouts, arguments.per_namespace, url, plain=arguments.plain)
    await asyncio.sleep(2.0)  # the CRD's storage comes up
    await in_parallel([admin.create(resource, namespace, body) for resource, namespace, body in made])
    async with controlplane.client() as local:
        token = await local.service_account_token(SYSTEM, "canary-rollout-operator")
        # The Deployment of the manifests would be a second operator; here it runs as a process of its own.
        await local.patch(
            "apps/v1", "Deployment", "canary-rollout-operator", {"spec": {"replicas": 0}}, namespace=SYSTEM
        )
    return controlplane.kubeconfig(controlplane.directory / "operator.kubeconfig", token=token)


def gauge(port: int, name: str) -> float:
    """One value of the operator's /metrics."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    found = re.search(rf"^{name} ([0-9.e+-]+)$", text, re.MULTILINE)
    return float(found[1]) if found else float("nan")


def imports_alone() -> float:
    """Megabytes of a process that has done nothing but import the operator."""
    code = (
        "import canary_rollout.controller.lean as lean; lean.leave_out(); import canary_rollout.controller.main;"
        "print(open('/proc/self/statm').read().split()[1])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return round(int(found.stdout) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


async def until(proxies: PaperProxies, usage: Usage, weight: int, count: int, within: float) -> None:
    """Until every proxy was told ``weight``."""
    end, shown = time.monotonic() + within, time.monotonic()
    while sum(told == weight for told in proxies.weights.values()) < count:
        usage.check()
        if time.monotonic() > end:
            reached = sum(told == weight for told in proxies.weights.values())
            raise SystemExit(f"only {reached} of {count} rollouts reached {weight} basis points within {within:.0f} s")
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            say(f"  {sum(told == weight for told in proxies.weights.values())} of {count}")
        proxies.changed.clear()
        try:
            async with asyncio.timeout(1.0):
                await proxies.changed.wait()
        except TimeoutError:
            pass


async def measure(
    arguments: argparse.Namespace, controlplane: ControlPlane, prometheus: PaperPrometheus
) -> dict[str, object]:
    """The whole story; the numbers."""
    count = arguments.rollouts
    admin = await Client.from_kubeconfig(
        str(controlplane.kubeconfig(controlplane.directory / "kubeconfig")), timeout=60.0
    )
    local = controlplane.client()
    node, proxies = PaperNode(admin, local), PaperProxies(admin)
    background = [asyncio.create_task(node.run()), asyncio.create_task(proxies.run())]
    say(f"creating {count} rollouts and what they refer to")
    kubeconfig = await prepare(controlplane, admin, arguments, prometheus.url)
    port = free_port()
    log = (controlplane.directory / "operator.log").open("wb")
    command = [
        sys.executable,
        "-m",
        "canary_rollout.controller",
        "--kubeconfig",
        str(kubeconfig),
        "--namespace",
        SYSTEM,
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", os.environ.get("BENCH_LOG_LEVEL", "warning")]
    operator = Running(command, log)
    await operator.start()
    try:
        usage = Usage(operator)
        began = time.monotonic()
        await until(proxies, usage, 0, count, 1800)
        say(f"all at rest after {time.monotonic() - began:.0f} s; releasing a new version everywhere")
        at_rest = round(usage.resident(), 1)
        began = time.monotonic()
        names = [(f"team-{number // arguments.per_namespace:03d}", f"app-{number:05d}") for number in range(count)]
        image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "app:v2"}]
        for begin in range(0, count, RELEASED_AT_ONCE):  # everything at once is a test of the API server
            part = names[begin : begin + RELEASED_AT_ONCE]
            await in_parallel([admin.json_patch(DEPLOYMENTS, space, f"{name}-canary", image) for space, name in part])
            await until(proxies, usage, 500, min(count, begin + RELEASED_AT_ONCE), 900)
        say(f"all held at 5 % after {time.monotonic() - began:.0f} s")
        sets, _ = await admin.list_all(REPLICA_SETS)
        prometheus.begin([(item["metadata"]["namespace"], item["metadata"]["name"]) for item in sets])
        await asyncio.sleep(25.0)  # the first evaluations, and the status writes that follow from them
        result = await held(arguments, controlplane, prometheus, usage, port)
        result["resident at rest, MB"], result["imports alone, MB"] = at_rest, imports_alone()
        say("every canary turns bad")
        turned = time.monotonic()
        prometheus.turn_bad()
        await until(proxies, usage, 0, count, 900)
        lasts = sorted(at - turned for at in proxies.at.values())
        result["seconds to weight 0, median"] = round(lasts[len(lasts) // 2], 2)
        result["seconds to weight 0, last"] = round(lasts[-1], 2)
        result["restarts of the operator"] = operator.restarts
        return result
    finally:
        await operator.end()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await admin.close()
        await local.close()
        text = (controlplane.directory / "operator.log").read_text(encoding="utf-8", errors="replace")
        if arguments.log:
            arguments.log.write_text(text, encoding="utf-8")


async def held(
    arguments: argparse.Namespace, controlplane: ControlPlane, prometheus: PaperPrometheus, usage: Usage, port: int
) -> dict[str, object]:
    """What the operator costs while nothing happens."""
    count, seconds = arguments.rollouts, arguments.minutes * 60
    offset = controlplane.audit_log.stat().st_size
    cpu, queries, began = usage.cpu(), prometheus.queries, time.monotonic()
    lateness = histogram(port, "canary_rollout_queue_lateness_seconds", "evaluate")
    say(f"measuring for {seconds:.0f} s")
    await asyncio.sleep(seconds)
    usage.check()
    took, used, asked = time.monotonic() - began, usage.cpu() - cpu, prometheus.queries - queries
    after = histogram(port, "canary_rollout_queue_lateness_seconds", "evaluate")
    calls = controlplane.count_calls(ACCOUNT, offset=offset)
    checks = max(after.values()) - max(lateness.values(), default=0)
    kinds: dict[str, int] = {}
    for call, number in calls.items():
        group = (
            "lease"
            if call.resource == "leases" and call.verb in {"update", "patch", "get"}
            else f"{call.verb} {call.resource}"
        )
        kinds[group] = kinds.get(group, 0) + number
    return {
        "rollouts": count,
        "product": "two thresholds alone" if arguments.plain else "as installed: comparison and standard halt rules",
        "load average of the machine": [round(load, 1) for load in os.getloadavg()],
        "seconds measured": round(took, 1),
        "checks made": int(checks),
        "checks wanted": int(count * took / 10),
        "CPU, percent of one core": round(100 * used / took, 2),
        "CPU per check, ms": round(1000 * used / max(1, checks), 3),
        "resident, MB": round(usage.resident(), 1),
        "queries per sub-tick of 1 s": round(asked / took, 2),
        "lateness of checks p50, s (bucket)": quantile(lateness, after, 0.5),
        "lateness of checks p99, s (bucket)": quantile(lateness, after, 0.99),
        "event loop late by at most, s": round(gauge(port, "canary_rollout_loop_lag_seconds"), 3),
        "API calls by kind": dict(sorted(kinds.items())),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=500)
    parser.add_argument("--per-namespace", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--plain", action="store_true", help="no comparison, no standard halt rules: two thresholds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--log", type=Path, help="keep what the operator logged")
    arguments = parser.parse_args()
    binary = await ensure_controlplane()
    directory = Path(tempfile.mkdtemp(prefix="canary-rollout-scale-"))
    table = ProcessTable(directory, remove_run_dir=True)
    controlplane = ControlPlane(
        binary, directory / "controlplane", table, service_range="10.96.0.0/12", audit_log=True, api_qps=1000
    )
    prometheus = PaperPrometheus()
    try:
        await controlplane.start()
        result = await measure(arguments, controlplane, prometheus)
    finally:
        prometheus.stop()
        await table.close()
    for name, value in result.items():
        print(f"{name:42} {json.dumps(value)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
