"""CPU per check and queries per sub-tick of the sampler, the rules and the comparison, against a server that answers at once.

The server speaks Prometheus' wire format over real HTTP, in a process of its own, and answers every query with the series
of all rollouts in the namespaces asked for. `python bench/sampler.py [--n 50 500 5000] [--seconds 30] [--json]`.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import re
import resource
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from canary_rollout.analysis.comparing import policy_of
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.rules import assess
from canary_rollout.controller import comparing
from canary_rollout.controller.running import Running, begin
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.sampler import PrometheusSampler
from canary_rollout.model.spec import CanaryRolloutSpec

INTERVAL = 10.0
ARMS = ("-7d9f8b6c5d", "-canary-5c4d3b2a19")
EDGES = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
VALUES = {"histogram_quantile(0.99": "0.21", "increase": "4812.5", "/": "0.00131"}


def namespaces_of(count: int) -> list[str]:
    """One namespace for every ten rollouts, at most 200."""
    return [f"team-{number:03d}" for number in range(max(1, min(200, count // 10)))]


def places(count: int) -> list[tuple[str, str]]:
    """Namespace and name of every rollout."""
    names = namespaces_of(count)
    return [(names[number % len(names)], f"app-{number:05d}") for number in range(count)]


class Server(ThreadingHTTPServer):
    """Answers are rendered once per set of namespaces and value; only the time is new each time."""

    daemon_threads = True
    count = 0

    def series(self, query: str, at: float) -> str:
        """Every series in the namespaces that the query names; nothing for what a plain app does not have."""
        if "http_request" not in query:
            return ""
        found = re.search(r'namespace=~?"([^"]*)"', query)
        wanted = frozenset(found[1].split("|")) if found else frozenset()
        if "by (namespace, pod" in query:
            return self.raw(query, wanted, at)
        value = next((value for start, value in VALUES.items() if start in query), "1")
        if (value, wanted) not in self.cache:
            self.cache[value, wanted] = ",".join(
                f'{{"metric":{{"namespace":"{namespace}","cr_arm":"{name}{arm}-"}},"value":[@,"{value}"]}}'
                for namespace, name in places(self.count)
                if namespace in wanted
                for arm in ARMS
            )
        return self.cache[value, wanted]

    def raw(self, query: str, wanted: frozenset[str], at: float) -> str:
        """Cumulative counters of two pods per version, which rise with the time."""
        edges = EDGES if "le)" in query else ("",)
        kind = "buckets" if "le)" in query else "errors" if "or 0 *" in query else "requests"
        if (kind, wanted) not in self.cache:
            self.cache[kind, wanted] = ",".join(
                f'{{"metric":{{"namespace":"{namespace}","pod":"{name}{arm}-{pod}"'
                f'{f",{chr(34)}le{chr(34)}:{chr(34)}{edge}{chr(34)}" if edge else ""}}},"value":[@,"#"]}}'
                for namespace, name in places(self.count)
                if namespace in wanted
                for arm in ARMS
                for pod in ("aaaaa", "bbbbb")
                for edge in edges
            )
        risen = f"{(at % 1e6) * (0.05 if kind == 'errors' else 50):.0f}"
        return self.cache[kind, wanted].replace("#", risen)


class Handler(BaseHTTPRequestHandler):
    """``/api/v1/query``, whatever the path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def answer(self, parameters: dict[str, list[str]]) -> None:
        """Answer one instant query."""
        if "time" not in parameters:  # a range: stable's past, which this app has not
            series, kind = "", "matrix"
        else:
            at, kind = parameters["time"][0], "vector"
            series = self.server.series(parameters["query"][0], float(at)).replace("@", at)
        body = f'{{"status":"success","data":{{"resultType":"{kind}","result":[{series}]}}}}'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        self.answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(count: int, connection: object) -> None:
    server = Server(("127.0.0.1", 0), Handler)
    server.count, server.cache = count, {}
    connection.send(server.server_address[1])
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def spec_of(url: str) -> CanaryRolloutSpec:
    """The default stages and rules: error rate, p99 against stable, p75 at the gate."""
    return CanaryRolloutSpec.model_validate(
        {
            "workload": {
                "stable": {"service": "a", "deployment": "a"},
                "canary": {"service": "a-canary", "deployment": "a-canary"},
            },
            "traffic": {"nginx": {"service": "proxy"}},
            "metrics": {"prometheus": url, "interval": "10s", "history": "0s"},
        }
    )


class Counting:
    """Counts queries per second."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()

    def query_finished(self, server: str, outcome: str, seconds: float) -> None:
        """Count it in its second."""
        del server, seconds
        self.outcomes[outcome] += 1
        self.seconds[int(time.monotonic() - self.began)] += 1

    def query_held_back(self, server: str) -> None:
        """Count it."""
        del server
        self.outcomes["held back"] += 1


async def run(count: int, seconds: float, url: str) -> dict[str, float]:
    spec, stage = spec_of(url), spec_of(url).stages[1]
    observer = Counting()
    sampler = PrometheusSampler(observer)
    requests = []
    for namespace, name in places(count):
        sets = frozenset({f"{name}-7d9f8b6c5d"}), frozenset({f"{name}-canary-5c4d3b2a19"})
        phase = comparing.place_of((namespace, name), INTERVAL)
        requests.append(MetricRequest.of(namespace, name, spec, stage, *sets, compared=True, phase=phase))
    for request in requests:
        sampler.register(request)
    lateness: list[float] = []
    judged = passed = 0
    assess_cpu = compare_cpu = 0.0
    policy = policy_of(spec)
    running: dict[str, Running] = {}

    class Ticks:
        def ticked(self, seconds: float, **_: bool) -> None:
            nonlocal compare_cpu
            compare_cpu += seconds

    async def check(request: MetricRequest, due: float) -> None:
        nonlocal judged, passed, assess_cpu
        samples = await sampler.sample(request)
        latest = comparing.latest_tick((request.namespace, request.rollout), spec, time.time())
        if request.key not in running:
            running[request.key] = begin(policy, INTERVAL, latest)
            running[request.key].weights = [(0.0, stage.weight)]
        wanted = comparing.Wanted(request, {}, latest)
        await comparing.compare(spec, running[request.key], sampler, wanted, observer=Ticks())
        compared = running[request.key].compared(latest)
        before = time.thread_time()
        assessment, evidence[request.key] = assess(spec, stage, samples, evidence[request.key], samples.at, compared)
        assess_cpu += time.thread_time() - before
        judged += 1
        passed += not any(verdict.outcome == "fail" for verdict in assessment.stops)
        lateness.append(time.time() - due)

    evidence = {request.key: Evidence() for request in requests}
    # Due times fall on the sub-ticks of a second, as the controller spreads them.
    await sampler.sample(requests[0])  # the server renders its answers once
    start = float(int(time.time()) + 2)
    await asyncio.sleep(start - time.time())
    observer.began = time.monotonic()
    cpu = time.process_time()
    due = start
    async with asyncio.TaskGroup() as group:
        while due < start + seconds:
            place_now = round(due) % int(INTERVAL)
            for request in requests:
                if request.phase == place_now:
                    group.create_task(check(request, due))
            due += 1.0
            await asyncio.sleep(max(0.0, due - time.time()))
    cpu = time.process_time() - cpu
    await sampler.close()
    late = sorted(lateness)
    per_second = [observer.seconds[second] for second in range(int(seconds))]
    return {
        "rollouts": count,
        "checks": judged,
        "checks wanted": round(count * seconds / INTERVAL),
        "without a fail": passed,
        "queries per sub-tick (max)": max(per_second),
        "queries per sub-tick (mean)": round(sum(per_second) / len(per_second), 2),
        "queries failed": sum(number for outcome, number in observer.outcomes.items() if outcome != "ok"),
        "CPU ms per check": round(cpu / judged * 1000, 3),
        "of which rules": round(assess_cpu / judged * 1000, 3),
        "of which comparison": round(compare_cpu / judged * 1000, 3),
        "CPU % of a core": round(cpu / seconds * 100, 1),
        "lateness p50 ms": round(late[len(late) // 2] * 1000, 1),
        "lateness p99 ms": round(late[int(len(late) * 0.99)] * 1000, 1),
        "peak resident MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    for count in options.n:
        here, there = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(count, there), daemon=True)
        process.start()
        try:
            results.append(asyncio.run(run(count, options.seconds, f"http://127.0.0.1:{here.recv()}")))
        finally:
            process.terminate()
            process.join()
    if options.json:
        json.dump(results, sys.stdout, indent=2)
        return
    for name in results[0]:
        print(f"{name:30}" + "".join(f"{result[name]:>12}" for result in results))


if __name__ == "__main__":
    main()
