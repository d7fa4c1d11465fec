"""``backtest``: what the operator would have done, by replaying the past from Prometheus through the very same engine."""

import fnmatch
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from canary_rollout.cli.options import (
    DURATION,
    output_option,
    point_in_time,
    prometheus_options,
    target_options,
)
from canary_rollout.cli.session import Session, session_of

if TYPE_CHECKING:
    from canary_rollout.analysis.readings import CounterReadings
    from canary_rollout.cli.asking import Subject
    from canary_rollout.cli.history import History
    from canary_rollout.cli.outcome import Result
    from canary_rollout.cli.simulate import Simulation
    from canary_rollout.metrics.request import MetricRequest
    from canary_rollout.model.spec import CanaryRolloutSpec

_LONGEST: Final = 100_000
"""Ticks; a longer stretch is refused instead of keeping Prometheus busy for hours."""
_MANY: Final = 2000
"""Ticks that take so long (about four milliseconds each) that it is said beforehand."""


@click.command(short_help="What would have happened: the past from Prometheus through the same engine.")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--from",
    "start",
    required=True,
    metavar="TIME",
    help="Where the past begins: 2026-11-20T09:00:00Z, or 24h (ago).",
)
@click.option("--to", "end", default="now", show_default=True, metavar="TIME", help="Where the past ends.")
@click.option("--name", metavar="NAME", help="Which CanaryRollout of the file, where it holds several.")
@click.option(
    "--revision", multiple=True, metavar="HASH", help="The canary's pod-template-hash; default: all its pods."
)
@click.option("--canary-pods", multiple=True, metavar="PATTERN", help="These pods are the canary: checkout-6b7f9c-*.")
@click.option("--stable-pods", multiple=True, metavar="PATTERN", help="These pods are stable; default: all others.")
@click.option("--interval", type=DURATION, help="Time between two evaluations, instead of metrics.interval.")
@click.option(
    "--approve/--no-approve", default=True, show_default=True, help="A person says yes wherever one is asked."
)
@click.option("--resume", is_flag=True, help="A person says resume as soon as something pauses.")
@prometheus_options
@output_option
@target_options
@click.pass_context
def backtest(ctx: click.Context, /, *, file: str, output: str | None, **given: Any) -> int:
    """Replay the past through the rollout in FILE and say what would have happened, and when.

    Every tick from --from to --to is read from Prometheus and goes through the same analysis and engine as in the
    operator; the rollout begins with the canary's first request. The weights are those the engine would have wanted, the numbers those that the two versions had at the
    time, whatever their share was. No cluster is needed.

    Exit code 0: it would not have been stopped; 1: rolled back, halted or paused; 2: bad input; 3: Prometheus did not
    answer, or has nothing about the canary.
    """
    import asyncio

    from canary_rollout.cli.errors import Exit
    from canary_rollout.cli.manifest import one_rollout
    from canary_rollout.cli.offline import spec_of
    from canary_rollout.cli.outcome import as_data, show

    session = session_of(ctx)
    manifest = one_rollout(file, given["name"])
    spec = spec_of(manifest)
    if given["interval"]:
        raw = {**manifest.raw["spec"], "metrics": {**manifest.raw["spec"]["metrics"], "interval": given["interval"]}}
        spec = type(spec).model_validate(raw)
    start, end = _stretch(session, spec, given)
    namespace = session.target.namespace or str(manifest.metadata.get("namespace", "default"))
    result = asyncio.run(_replay(namespace, str(manifest.metadata.get("name")), spec, (start, end), given))
    if output:
        from canary_rollout.cli.show import print_data

        print_data(as_data(result), output)
    else:
        show(session.tools.console(), f"{namespace}/{manifest.metadata.get('name')}", result)
    return Exit.OK if result.verdict in {"succeeded", "under way"} else Exit.REFUSED


def _stretch(session: Session, spec: "CanaryRolloutSpec", given: dict[str, Any]) -> tuple[float, float]:
    """Start and end on the tick grid, POSIX seconds."""
    from math import floor

    now, step = session.tools.now(), spec.metrics.interval
    start = point_in_time(given["start"], now, "--from")
    end = min(now, point_in_time(given["end"], now, "--to"))
    start, end = floor(start / step) * step, floor(end / step) * step
    if end <= start:
        raise click.UsageError("--to lies before --from: nothing is in between")
    if (end - start) / step > _LONGEST:
        raise click.UsageError(
            f"that is {(end - start) / step:.0f} evaluations: choose less time, or --interval 1m (at most {_LONGEST})"
        )
    if (evaluations := (end - start) / step) > _MANY:
        click.echo(f"replaying {evaluations:.0f} evaluations", err=True)
    return start, end


async def _replay(
    namespace: str, name: str, spec: "CanaryRolloutSpec", stretch: tuple[float, float], given: dict[str, Any]
) -> "Result":
    from canary_rollout.analysis.readings import keys_needed
    from canary_rollout.cli.asking import Login, asked, subject_of_spec
    from canary_rollout.cli.history import History
    from canary_rollout.cli.simulate import Simulation

    subject = await subject_of_spec(namespace, name, spec, Login.of(given))
    start, end = stretch
    simulation = Simulation(spec, approve=given["approve"], resume=given["resume"])
    keys = frozenset().union(*(keys_needed(simulation.spec, stage) for stage in (None, *spec.active_stages)))
    with asked(subject.targets[""]):
        request, arms = await _request(subject, start, end, given)
        request = replace(request, measures=keys)
        async with History(request) as history:
            simulation.history = await _past(history, arms, spec, start)
            return await _run(simulation, _ticks(history, arms, (start, end, spec.metrics.interval)), request)


@dataclass(frozen=True, slots=True)
class _Arms:
    """Pods by name, where the command line says whose they are; empty: as the request says."""

    canary: frozenset[str] = frozenset()
    stable: frozenset[str] = frozenset()

    def sorted_out(self, reading: "CounterReadings") -> "CounterReadings":
        """The raw counters with every pod on the side it was given to."""
        if not self.canary:
            return reading
        kept = tuple(
            sample._replace(arm="canary" if sample.pod in self.canary else "stable")
            for sample in reading.samples
            if sample.pod in self.canary or sample.pod in self.stable
        )
        return replace(reading, samples=kept)


async def _request(
    subject: "Subject", start: float, end: float, given: dict[str, Any]
) -> "tuple[MetricRequest, _Arms]":
    """What to read: whose pods are the canary's, by the spec, by revision or by name."""
    import asyncio

    from canary_rollout.cli.asking import pods_of_the_past, with_replica_sets
    from canary_rollout.metrics.client import PrometheusClient

    by_name = given["canary_pods"] or given["stable_pods"]
    if not subject.by_pod:
        if by_name or given["revision"]:
            raise click.UsageError("the series of this source do not name pods: leave out --canary-pods and --revision")
        return subject.request(None, compared=subject.spec.analysis.enabled, began=start), _Arms()
    client = PrometheusClient(subject.targets[""])
    try:
        pods = await asyncio.to_thread(pods_of_the_past, subject, client, start - subject.spec.metrics.history, end)
    finally:
        client.close()
    subject = with_replica_sets(subject, pods)
    if given["revision"]:
        chosen = frozenset(name for name in subject.replica_sets[1] if name.rpartition("-")[2] in given["revision"])
        if not chosen:
            known = ", ".join(sorted(name.rpartition("-")[2] for name in subject.replica_sets[1])) or "none"
            raise click.UsageError(f"the canary had no pods of revision {', '.join(given['revision'])}; it had {known}")
        subject = replace(subject, replica_sets=(subject.replica_sets[0], chosen))
    request = subject.request(None, compared=subject.spec.analysis.enabled, began=start)
    return _by_name(request, pods, given) if by_name else (request, _Arms())


def _by_name(request: "MetricRequest", pods: frozenset[str], given: dict[str, Any]) -> "tuple[MetricRequest, _Arms]":
    def matching(patterns: tuple[str, ...]) -> frozenset[str]:
        return frozenset(pod for pod in pods if any(fnmatch.fnmatchcase(pod, pattern) for pattern in patterns))

    known = request.stable.replica_sets | request.canary.replica_sets
    mine = frozenset(pod for pod in pods if pod.rpartition("-")[0] in known)
    canary = matching(given["canary_pods"]) if given["canary_pods"] else mine - matching(given["stable_pods"])
    stable = (matching(given["stable_pods"]) if given["stable_pods"] else mine) - canary
    if not canary or not stable:
        raise click.UsageError(
            f"the patterns leave {len(canary)} pods to the canary and {len(stable)} to stable; there were: "
            f"{', '.join(sorted(mine)[:20])}"
        )
    everything = frozenset(pod.rpartition("-")[0] for pod in canary | stable)
    return replace(
        request,
        stable=replace(request.stable, replica_sets=everything, pods=stable),
        canary=replace(request.canary, replica_sets=frozenset({"no-such-replica-set"}), pods=canary),
    ), _Arms(canary, stable)


async def _past(
    history: "History", arms: _Arms, spec: "CanaryRolloutSpec", start: float
) -> "tuple[CounterReadings, ...]":
    """Stable's past, as the comparison learns it before a rollout."""
    from canary_rollout.controller.running import HISTORY_STEP

    steps = spec.metrics.history // HISTORY_STEP
    if not spec.analysis.enabled or steps < 1:
        return ()
    found = await history.counters(start - steps * HISTORY_STEP, start - spec.metrics.interval, HISTORY_STEP)
    return tuple(arms.sorted_out(reading) for reading in found)


async def _ticks(history: "History", arms: _Arms, stretch: tuple[float, float, float]) -> "AsyncIterator[Any]":
    async for past in history.ticks(*stretch):
        yield replace(past, counters=arms.sorted_out(past.counters)) if past.counters is not None else past


async def _run(simulation: "Simulation", ticks: "AsyncIterator[Any]", request: "MetricRequest") -> "Result":
    from canary_rollout.analysis.readings import REQUESTS, ReadingKind
    from canary_rollout.analysis.sequential.ruling import RECEIVED_SHARE
    from canary_rollout.cli.asking import unreachable
    from canary_rollout.cli.errors import CliError, Exit
    from canary_rollout.cli.outcome import Result, Tally

    result = None
    async for past in ticks:
        at, readings = past.samples.at, past.samples.readings
        if all(pair.canary.kind is ReadingKind.UNAVAILABLE for pair in readings.values()):
            why = next(iter(readings.values())).canary.message
            raise CliError(unreachable(request.server, why), Exit.UNREACHABLE)
        if result is None:
            if not any(pair.canary.value for key, pair in readings.items() if key.what == REQUESTS):
                continue  # rules whose series nobody has had yet are inactive, and would let everything pass
            result = Result(at)
            simulation.begin(at)
            result.events = simulation.events
        result.ticks += 1
        assessment = await simulation.tick(past)
        for verdict in (found for found in assessment.every if found.rule != RECEIVED_SHARE):
            result.tallies.setdefault(verdict.rule, Tally(verdict.rule)).take(verdict, at)
        result.through = at
        if simulation.over and result.ended is None:
            result.ended, result.message = at, simulation.message
    if result is None:
        raise CliError(
            "Prometheus has no request of the canary in this time: choose another --from, or say which pods are the canary "
            "with --canary-pods",
            Exit.UNREACHABLE,
        )
    _conclude(result, simulation)
    return result


def _conclude(result: "Result", simulation: "Simulation") -> None:
    """How it ended, or where it stood at the end of the past."""
    from canary_rollout.model.conditions import Phase

    phase = simulation.state.phase
    result.message = result.message or simulation.message
    stopped = {Phase.ROLLING_BACK: "rolled back", Phase.ROLLED_BACK: "rolled back", Phase.HALTED: "halted"}
    if phase in stopped:
        result.verdict, result.rule = stopped[phase], simulation.state.halts[0].rule
        result.message = simulation.state.halts[0].message
    elif simulation.over:
        result.verdict = "succeeded"
    elif simulation.state.pause is not None:
        pause = simulation.state.pause
        result.verdict, result.rule, result.message, result.ended = "paused", pause.rule, pause.message, pause.at
