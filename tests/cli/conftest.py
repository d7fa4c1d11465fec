"""A cluster in memory with an operator that answers, behind the same protocol as the real one."""

import io
import json
import re
import time
import types
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import past_metrics
import pytest
import pytest_asyncio
from click.testing import CliRunner
from engine_operator import EngineOperator
from found_rollouts import NOW, REVISION, STABLE, deployment, paused, progressing, rolled_back, rollout
from known_prometheus import prometheus_knowing
from memory_cluster import MemoryApi, Operator
from rich.console import Console
from two_versions import versions

from canary_rollout.cli.main import cli
from canary_rollout.cli.session import Connection, Session, Target, Tools
from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS, UnavailableError
from canary_rollout.metrics.sampler import PrometheusSampler


@dataclass
class World:
    """The cluster, the operator, the clock and the terminal of one test."""

    api: MemoryApi = field(default_factory=MemoryApi)
    now: float = NOW
    interactive: bool = False
    terminal: io.StringIO | None = None
    columns: int = 80
    rows: int = 40
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
                size = {"width": self.columns, "height": self.rows}
                return Console(file=self.terminal, force_terminal=True, **size, highlight=False, markup=False)

        tools = Here(
            connect=self.connect,
            now=lambda: self.now,
            sampler=self.sampler,
            sleep=self.sleep,
            interactive=lambda: self.interactive,
        )
        runner = CliRunner(env={"COLUMNS": str(self.columns), "NO_COLOR": None, "TERM": "xterm"})
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
    directory = tmp_path_factory.mktemp("prometheus")
    # Seldom, so that the time-out is long: the first scrape has to bring everything, since what it leaves out is too old
    # afterwards.
    async with prometheus_knowing(past_metrics.world(end), end, directory, every=10.0, within=120) as prometheus:
        yield types.SimpleNamespace(url=prometheus.url, end=end)


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


@pytest.fixture
def diff(world):
    """Compare two answers (values, or functions of the path); the result with its report as ``data``."""

    def run(stable, canary, *words, paths=("/a",), stdin=None):
        answers = [answer if callable(answer) else lambda _, answer=answer: answer for answer in (stable, canary)]
        asked = [part for path in paths for part in ("--path", path)]
        with versions(*answers) as servers:
            result = world.run(
                "diff",
                "--stable",
                servers[0].url,
                "--canary",
                servers[1].url,
                *asked,
                *words,
                "-o",
                "json",
                stdin=stdin,
            )
        result.servers = servers
        result.data = json.loads(result.stdout) if result.stdout.startswith("{") else None
        return result

    return run
