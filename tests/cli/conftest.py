"""A cluster in memory with an operator that answers, behind the same protocol as the real one."""

import asyncio
import copy
import io
import re
import time
import types
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import past_metrics
import pytest
import pytest_asyncio
from aiohttp import web
from click.testing import CliRunner
from engine_operator import EngineOperator
from rich.console import Console

from canary_rollout.cli.main import cli
from canary_rollout.cli.session import Connection, Session, Target, Tools
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    DEPLOYMENTS,
    ConflictError,
    NotFoundError,
    UnavailableError,
)
from canary_rollout.local.build import ensure_prometheus
from canary_rollout.local.ports import free_port
from canary_rollout.local.process import ProcessTable
from canary_rollout.local.prometheus import Prometheus, static_scrape_config
from canary_rollout.metrics.sampler import PrometheusSampler
from canary_rollout.model.commands import read_commands
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.status import (
    CanaryRolloutStatus,
    ConditionStatus,
    Halt,
    HistoryEntry,
    Pause,
    RolloutState,
    StageClock,
    VerdictStatus,
)

NOW = 1_763_719_200.0
"""2025-11-21 10:00:00 UTC."""
REVISION = "ab12cd34ef"
STABLE = "0011223344"


class MemoryApi:
    """Objects by (plural, namespace, name). ``fail`` maps a verb to the error that its next calls raise."""

    def __init__(self):
        self.objects = {}
        self.calls = []
        self.fail = {}
        self.events = []
        self.user = "anna@example.com"
        self.version = 100

    def put(self, resource, obj):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        meta = obj["metadata"]
        self.objects[resource.plural, meta["namespace"], meta["name"]] = obj

    def _begin(self, verb, resource, name=None):
        self.calls.append((verb, resource.plural, name))
        error = self.fail.get((verb, resource.plural)) or self.fail.get(verb)
        if error is not None:
            raise error

    def _find(self, resource, namespace, name):
        try:
            return self.objects[resource.plural, namespace, name]
        except KeyError:
            raise NotFoundError(f'{resource.plural} "{name}" not found (404 NotFound)', status=404) from None

    async def get(self, resource, namespace, name):
        self._begin("get", resource, name)
        return copy.deepcopy(self._find(resource, namespace, name))

    async def list_all(self, resource, namespace=None, *, labels="", fields=""):
        wanted = dict(term.split("=") for term in labels.split(",") if term)
        self._begin("list", resource)
        found = [
            copy.deepcopy(obj)
            for (plural, where, _), obj in self.objects.items()
            if plural == resource.plural
            and namespace in (None, where)
            and wanted.items() <= obj["metadata"].get("labels", {}).items()
        ]
        return found, str(self.version)

    async def create(self, resource, namespace, body):
        self._begin("create", resource)
        assert resource.plural == "selfsubjectreviews"
        return {"status": {"userInfo": {"username": self.user}}}

    async def merge_patch(self, resource, namespace, name, body, *, subresource=None, manager="?"):
        self._begin("patch", resource, name)
        assert manager == "kubectl-canary"
        assert list(body) == ["metadata"]
        assert list(body["metadata"]) == ["annotations"]
        obj = self._find(resource, namespace, name)
        annotations = obj["metadata"].setdefault("annotations", {})
        for key, value in body["metadata"]["annotations"].items():
            if value is None:
                annotations.pop(key, None)
            else:
                annotations[key] = value
        return copy.deepcopy(obj)

    async def json_patch(self, resource, namespace, name, operations, *, subresource=None, manager="?", dry_run=False):
        self._begin("dry-run" if dry_run else "patch", resource, name)
        assert manager == "kubectl-canary"
        obj = copy.deepcopy(self._find(resource, namespace, name))
        for operation in operations:
            *parents, last = [part for part in operation["path"].split("/") if part]
            at = obj
            for part in parents:
                at = at[int(part)] if isinstance(at, list) else at[part]
            if operation["op"] == "test" and at[last] != operation["value"]:
                raise ConflictError(f"test of {operation['path']} does not hold", status=422)
            if operation["op"] == "replace":
                at[last] = operation["value"]
        if not dry_run:
            self.put(resource, obj)
        return copy.deepcopy(obj)

    async def watch(self, resource, namespace=None, *, resource_version, labels="", fields="", timeout=290.0):  # noqa: ASYNC109 - the port
        self._begin("watch", resource)
        while self.events:
            event = self.events.pop(0)
            if isinstance(event, Exception):
                raise event
            yield event
        raise AssertionError("the watch was asked for more than the test foresaw")


def deployment(name, image="shop/checkout:1.0", containers=("app",), namespace="shop"):
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": container, "image": image} for container in containers]},
            },
        },
    }


def progressing():
    """At 5 % in the second of four stages, three hours of twenty-four."""
    return CanaryRolloutStatus(
        observed_generation=1,
        phase=Phase.PROGRESSING,
        message="friendly is held at 5% for 24h; every rule passes; then beta (25%)",
        stage="friendly (2/4)",
        weight="5%",
        revision=REVISION,
        router="nginx (njs)",
        next_change=NOW + 21 * 3600,
        conditions=(
            ConditionStatus(
                type="Ready",
                status="False",
                reason=Reason.STAGE_HELD,
                message="friendly is held",
                last_transition_time=NOW - 3 * 3600,
            ),
        ),
        verdicts=(
            VerdictStatus(rule="error-rate", verdict="pass", message="0.12% of 18432 requests, allowed 1%"),
            VerdictStatus(rule="p99-latency", verdict="none", reason="NotEnough", message="41 of 100 requests"),
        ),
        history=(
            HistoryEntry(
                revision="ffee112233",
                result="RolledBack",
                reason="RuleFailed",
                message="too slow",
                ended_at=NOW - 86_400,
            ),
        ),
        rollout=RolloutState(
            phase=Phase.PROGRESSING,
            revision=REVISION,
            stable_revision=STABLE,
            stage="friendly",
            wanted=500,
            confirmed=500,
            clock=StageClock(held_ms=3_600_000, since=NOW - 2 * 3600),
        ),
    )


def rolled_back():
    """Stopped by a rule in the second stage."""
    halt = Halt(
        revision=REVISION,
        reason=Reason.RULE_FAILED,
        rule="error-rate",
        message="7.4% of 1213 requests failed, allowed 1%, stable 0.1%",
        stage="friendly",
        weight=500,
        at=NOW - 90,
    )
    return progressing().model_copy(
        update={
            "phase": Phase.ROLLED_BACK,
            "message": "rolled back: 7.4% of 1213 requests failed; `retry` starts it again",
            "weight": "0%",
            "next_change": None,
            "halt": halt,
            "verdicts": (VerdictStatus(rule="error-rate", verdict="fail", message=halt.message),),
            "rollout": RolloutState(phase=Phase.ROLLED_BACK, revision=REVISION, stage="", halts=(halt,)),
        }
    )


def paused():
    """Held by a person; the data plane still has another weight than wanted."""
    pause = Pause(reason=Reason.PAUSED_BY_COMMAND, message="paused by command of anna: lunch", at=NOW - 60)
    before = progressing()
    memory = before.rollout.model_copy(update={"phase": Phase.PAUSED, "pause": pause, "confirmed": 50})
    return before.model_copy(
        update={"phase": Phase.PAUSED, "message": pause.message, "next_change": None, "rollout": memory}
    )


def rollout(name="checkout", status=None, namespace="shop", **spec):
    stages = [
        {"name": "internal-test", "weight": "0.5%", "hold": "1h", "cohort": {"header": "X-Cohort", "values": ["qa"]}},
        {"name": "friendly", "weight": "5%", "hold": "24h", "exit": [{"preset": "latency-p75", "maxRatio": "1.10"}]},
        {"name": "beta", "weight": "25%", "hold": "48h", "approval": "required"},
        {"name": "ga", "weight": "100%", "hold": "1h"},
    ]
    obj = {
        "apiVersion": CANARY_ROLLOUTS.api_version,
        "kind": CANARY_ROLLOUTS.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generation": 1,
            "creationTimestamp": "2025-11-01T00:00:00Z",
        },
        "spec": {
            "workload": {
                "stable": {"service": name, "deployment": name},
                "canary": {"service": f"{name}-canary", "deployment": f"{name}-canary"},
            },
            "traffic": {"nginx": {"service": "edge"}},
            "metrics": {"prometheus": "http://127.0.0.1:9"},
            "stages": stages,
            **spec,
        },
    }
    if status is not None:
        obj["status"] = status.to_dict()
    return obj


@dataclass
class Operator:
    """Consumes commands as the real one does; ``refusal`` is what it says instead of yes."""

    api: MemoryApi
    refusal: str = ""
    running: bool = True
    seen: list = field(default_factory=list)

    def tick(self):
        if not self.running:
            return
        for (plural, _, _), obj in self.api.objects.items():
            if plural == CANARY_ROLLOUTS.plural:
                self._consume(obj)

    def _consume(self, obj):
        commands, errors = read_commands(obj["metadata"].get("annotations", {}))
        assert errors == []
        status = obj.setdefault("status", {})
        consumed = status.setdefault("consumed", {})
        for command in commands:
            if consumed.get(command.verb) == command.id:
                continue
            self.seen.append(command)
            consumed[command.verb] = command.id
            status["lastCommand"] = {
                "id": command.id,
                "command": command.verb,
                "at": "2025-11-21T10:00:00.000Z",
                "accepted": not self.refusal,
                "message": self.refusal or f"done: {command.verb}",
            }


@dataclass
class World:
    """The cluster, the operator, the clock and the terminal of one test."""

    api: MemoryApi = field(default_factory=MemoryApi)
    now: float = NOW
    interactive: bool = False
    terminal: io.StringIO | None = None
    targets: list[Target] = field(default_factory=list)
    slept: float = 0.0
    namespace: str = "shop"

    def __post_init__(self):
        self.operator = Operator(self.api)
        self.engine = None

    @asynccontextmanager
    async def connect(self, target):
        self.targets.append(target)
        yield Connection(self.api, target.namespace or self.namespace)

    @asynccontextmanager
    async def sampler(self):
        sampler = PrometheusSampler(now=lambda: self.now)
        try:
            yield sampler
        finally:
            await sampler.close()

    async def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds
        self.operator.tick()

    def run(self, *words, stdin=None):
        class Here(Tools):
            def console(tools):  # noqa: N805 - self is the world's
                if self.terminal is None:
                    return Tools.console(tools)
                return Console(file=self.terminal, force_terminal=True, width=80, highlight=False, markup=False)

        tools = Here(
            connect=self.connect,
            now=lambda: self.now,
            sampler=self.sampler,
            sleep=self.sleep,
            interactive=lambda: self.interactive,
        )
        runner = CliRunner(env={"COLUMNS": "80", "NO_COLOR": None, "TERM": "xterm"})
        result = runner.invoke(cli, list(words), obj=Session(tools=tools), input=stdin, prog_name="kubectl canary")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.output
        return result

    def rollout(self, name="checkout", namespace="shop"):
        return self.api.objects[CANARY_ROLLOUTS.plural, namespace, name]

    def put(self, obj):
        self.api.put(CANARY_ROLLOUTS if "kind" in obj else DEPLOYMENTS, obj)

    def adopt(self):
        """Let the real engine look after the rollout instead of the operator that says yes to everything."""
        self.engine = EngineOperator(self.rollout(), {}, {})

        def tick():
            self.engine.stable = self.api.objects[DEPLOYMENTS.plural, "shop", "checkout"]
            self.engine.canary = self.api.objects[DEPLOYMENTS.plural, "shop", "checkout-canary"]
            self.engine.tick(self.now)

        self.operator.tick = tick
        tick()
        return self

    def later(self, seconds, step=600):
        """Let time pass; the operator looks every ``step`` seconds and at the end."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.operator.tick()

    @property
    def sent(self):
        """The one command the operator took up."""
        assert len(self.operator.seen) == 1
        return self.operator.seen[0]


@pytest.fixture
def world():
    """A cluster with one rollout at 5 %."""
    made = World()
    made.put(rollout(status=progressing()))
    made.put(deployment("checkout"))
    made.put(deployment("checkout-canary"))
    return made


@pytest.fixture
def shop(world):
    """A rollout whose stable and canary are equal, looked after by the real engine."""
    world.put(rollout())
    return world.adopt()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def past(tmp_path_factory):
    """Address and last second of a real Prometheus that knows ``past_metrics.world``."""
    end = int(time.time()) // past_metrics.STEP * past_metrics.STEP
    body = "\n".join([*past_metrics.world(end), f"world_is_complete 1 {end * 1000}", ""])

    async def metrics(request):
        return web.Response(text=body, content_type="text/plain")

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    directory = tmp_path_factory.mktemp("prometheus")
    table = ProcessTable(directory, remove_run_dir=False)
    binary = await ensure_prometheus()
    # A long time-out: the first scrape has to bring everything, since what it leaves out is too old afterwards.
    job = static_scrape_config("past", [f"127.0.0.1:{port}"], 10.0) | {"honor_labels": True}
    prometheus = Prometheus(binary.path, directory, table, scrape_configs=[job])
    try:
        await prometheus.start()
        async with asyncio.timeout(40):
            while not await prometheus.query("world_is_complete", at=end):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)
        yield types.SimpleNamespace(url=prometheus.url, end=end)
    finally:
        await prometheus.stop()
        await table.close()
        await runner.cleanup()


@pytest.fixture
def make():
    """Objects to put into the world, by name."""
    return {
        "rollout": rollout,
        "deployment": deployment,
        "progressing": progressing,
        "rolled_back": rolled_back,
        "paused": paused,
        "unavailable": lambda: UnavailableError("GET /apis: no answer from the API server: refused"),
        "words": lambda text: re.sub(r"\s+", " ", text),
        "now": NOW,
        "revision": REVISION,
        "stable": STABLE,
    }
