"""``plan``: what a rollout will see and can find out, before it begins."""

from dataclasses import replace
from math import isinf
from typing import TYPE_CHECKING, Any, Final

import click

from canary_rollout.cli.options import DURATION, SHARE, output_option, prometheus_options, target_options
from canary_rollout.cli.session import Session, session_of

if TYPE_CHECKING:
    from rich.table import Table

    from canary_rollout.analysis.readings import Samples
    from canary_rollout.cli.asking import Subject
    from canary_rollout.cli.manifest import Manifest
    from canary_rollout.cli.planning import Plan, Traffic
    from canary_rollout.metrics.request import MetricRequest
    from canary_rollout.model.spec import CanaryRolloutSpec

_HOUR: Final = 3600.0
_BLOCK: Final = 60.0


@click.command(short_help="What a rollout will see and can find out, stage by stage.")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--name", metavar="NAME", help="Which CanaryRollout of the file, where it holds several.")
@click.option("--lookback", type=DURATION, default="24h", show_default=True, help="Take the traffic of this time.")
@click.option("--rps", type=click.FloatRange(0), help="Reckon with so many requests a second; Prometheus is not asked.")
@click.option("--error-rate", type=SHARE, help="Reckon with this share of failed requests on stable; with --rps.")
@prometheus_options
@output_option
@target_options
@click.pass_context
def plan(ctx: click.Context, /, *, file: str, output: str | None, **given: Any) -> int:
    """Say what the rollout in FILE will see and can find out, with the traffic that Prometheus saw lately.

    For each stage: how many requests the canary will get, the smallest regression that is found within the hold, and how
    fast larger ones are; which rules get too few requests or have no data today; which weights the router cannot express.
    No cluster is needed, only Prometheus, or --rps.

    Exit code 0; 1: the router cannot express a weight; 2: the manifest is not valid; 3: Prometheus did not answer.
    """
    import asyncio

    from canary_rollout.cli.manifest import one_rollout
    from canary_rollout.cli.offline import inexpressible, router_of, router_problems, spec_of
    from canary_rollout.cli.planning import plan_of, rule_states
    from canary_rollout.model.units import format_weight

    session = session_of(ctx)
    manifest = one_rollout(file, given["name"])
    spec = spec_of(manifest)
    namespace = session.target.namespace or str(manifest.metadata.get("namespace", "default"))
    name = str(manifest.metadata.get("name"))
    refused = [problem for problem in router_problems(spec, namespace, name) if problem.startswith("stage ")]
    refused += [
        f"stage {stage.name}: {spec.traffic.router} cannot express {format_weight(stage.weight)}: choose {near}"
        for _, stage, near in inexpressible(spec, router_of(spec, namespace, name).capabilities())
        if not any(problem.startswith(f"stage {stage.name}:") for problem in refused)
    ]
    if given["rps"] is not None:
        found = plan_of(spec, _told(given))
    else:
        traffic, samples = asyncio.run(_measured(session, manifest, spec, namespace, given))
        found = replace(plan_of(spec, traffic), rules=rule_states(spec, samples))
    if output:
        from canary_rollout.cli.show import print_data

        print_data(_data(found, refused), output)
    else:
        _print(session, f"{namespace}/{name}", spec, found, refused)
    return 1 if refused else 0


def _told(given: dict[str, Any]) -> "Traffic":
    from canary_rollout.cli.planning import Traffic

    return Traffic(given["rps"], given["rps"], given["error_rate"] or 0.0, source="as told by --rps")


async def _measured(
    session: Session, manifest: "Manifest", spec: "CanaryRolloutSpec", namespace: str, given: dict[str, Any]
) -> "tuple[Traffic, Samples]":
    """The traffic of the last time, and what every rule has to go by now."""
    import asyncio

    from canary_rollout.analysis.readings import keys_needed
    from canary_rollout.cli.asking import Login, asked, found_in_the_past, subject_of_spec
    from canary_rollout.cli.history import History
    from canary_rollout.metrics.client import PrometheusClient
    from canary_rollout.model.units import parse_duration

    now, lookback = session.tools.now(), parse_duration(given["lookback"])
    subject = await subject_of_spec(namespace, str(manifest.metadata.get("name")), spec, Login.of(given))
    target = subject.targets[""]
    client = PrometheusClient(target)
    try:
        with asked(target):
            subject = await asyncio.to_thread(found_in_the_past, subject, client, now - lookback, now)
            keys = frozenset().union(*(keys_needed(spec, stage) for stage in spec.active_stages))
            request = subject.request(None, compared=True, began=now)
            traffic = await _traffic(subject, request, now - lookback, now)
            async with History(replace(request, measures=keys, compared=False)) as history:
                ticks = [tick async for tick in history.ticks(now, now, spec.metrics.interval)]
    finally:
        client.close()
    return traffic, ticks[0].samples


async def _traffic(subject: "Subject", request: "MetricRequest", start: float, end: float) -> "Traffic":
    """Rate, quietest hour, error rate of stable and burst size.

    Raises:
        CliError: there was no request at all, or Prometheus did not answer.
    """
    from canary_rollout.analysis.readings import MeasureKey, ReadingKind
    from canary_rollout.cli.asking import unreachable
    from canary_rollout.cli.errors import CliError, Exit
    from canary_rollout.cli.history import History
    from canary_rollout.cli.planning import Traffic
    from canary_rollout.model.units import format_duration

    window = min(_HOUR, end - start)
    rate, errors = MeasureKey("request-rate", window), MeasureKey("error-rate", window)
    hours: list[tuple[float, float, float | None]] = []
    async with History(replace(request, measures=frozenset({rate, errors}))) as history:
        async for tick in history.ticks(start + window, end, window):
            pair, failed = tick.samples.pair(rate), tick.samples.pair(errors)
            for reading in (pair.stable, pair.canary):
                if reading.kind is ReadingKind.UNAVAILABLE:
                    raise CliError(unreachable(request.server, reading.message), Exit.UNREACHABLE)
            stable, canary = pair.stable.value or 0.0, pair.canary.value or 0.0
            hours.append((stable + canary, stable, failed.stable.value))
        burst = await _burst(history, max(start, end - subject.spec.metrics.history), end)
    seen = [total for total, _, _ in hours if total > 0]
    if not seen:
        raise CliError(
            f"Prometheus saw no request of {subject.namespace}/{subject.name} in the last {format_duration(end - start)}: "
            "check metrics.source and metrics.arms (`kubectl canary presets request-rate` shows the query), or reckon with "
            "--rps",
            Exit.UNREACHABLE,
        )
    weighed = [(stable, share) for _, stable, share in hours if share is not None]
    served = sum(stable for stable, _ in weighed)
    error_rate = sum(stable * share for stable, share in weighed) / served if served > 0 else 0.0
    source = f"over the last {format_duration(end - start)}"
    return Traffic(sum(seen) / len(seen), min(seen), error_rate, burst, source)


async def _burst(history: Any, start: float, end: float) -> float:
    """How clustered stable's errors were, by the very estimate of the comparison."""
    from canary_rollout.analysis.sequential import CounterTracker, RawSample
    from canary_rollout.analysis.sequential.dispersion import Dispersion

    tracker, spread = CounterTracker(_BLOCK, began=start, scrape_times=False), Dispersion()
    for reading in await history.counters(start, end, _BLOCK):
        for sample in reading.samples:
            if sample.arm == "stable":
                tracker.add(
                    RawSample(reading.at, "stable", sample.pod, sample.series, sample.value, sample.le, sample.created)
                )
        tick = tracker.tick(reading.at, 0, complete=reading.complete)
        spread.add([(pod, pod.requests, pod.errors) for pod in tick.stable])
        spread.close()
    return spread.phi


def _data(found: "Plan", refused: list[str]) -> dict[str, Any]:
    traffic = found.traffic
    return {
        "traffic": {
            "requestsPerSecond": traffic.requests,
            "quietestHour": traffic.quiet,
            "errorRate": traffic.error_rate,
            "burst": traffic.burst,
        },
        "seconds": found.seconds,
        "stages": [stage.to_dict() for stage in found.stages],
        "tooFewRequests": [
            {"rule": few.rule, "stage": few.stage, "expected": few.expected, "needed": few.needed, "window": few.window}
            for few in found.too_few
        ],
        "rules": [{"rule": rule.rule, "state": rule.state, "message": rule.message} for rule in found.rules],
        "refused": refused,
    }


def _print(session: Session, what: str, spec: "CanaryRolloutSpec", found: "Plan", refused: list[str]) -> None:
    from canary_rollout.cli.offline import uncounted_tenants
    from canary_rollout.cli.view import about

    console, traffic = session.tools.console(), found.traffic
    quiet = f", {_few(traffic.quiet)}/s in the quietest hour" if traffic.quiet < traffic.requests else ""
    bursts = f", in bursts of about {traffic.burst:.0f}" if traffic.burst >= 1.5 and traffic.error_rate > 0 else ""
    console.print(
        f"{what}: {_few(traffic.requests)} requests/s {traffic.source}{quiet}; "
        f"{traffic.error_rate:.3%} of stable's fail{bursts}. "
        f"All stages together take {about(found.seconds)} if nothing stops them.\n"
    )
    console.print(_table(found))
    console.print(
        "\nREQUESTS: the canary's in the hold. FINDS: the smallest error rate found within the hold, in nine of ten "
        "cases. 100%, 5%, 1%: how long until a canary that fails so many requests is found. EXCLUDES: higher error rates "
        "are ruled out when the hold ends and nothing was found."
    )
    if spec.traffic.sticky is not None:
        lack = uncounted_tenants(spec)
        console.print(
            "Tenants are kept on a version, so the share is one of tenants, and a few heavy ones can make it much more of the "
            "requests (`kubectl canary cohort` shows whom)."
            + (f" {lack[0].upper()}{lack[1:]}: the comparison pauses instead of rolling back." if lack else "")
        )
    if not spec.analysis.enabled:
        console.print("The comparison with stable is off (analysis.enabled): only halt rules and gates judge.")
    for line in (*refused, *_few_lines(found), *_rule_lines(found)):
        console.print(f"- {line}")


def _table(found: "Plan") -> "Table":
    from canary_rollout.cli.render import grid
    from canary_rollout.model.units import format_duration, format_weight

    titles = ["STAGE", "WEIGHT", "HOLD", "REQUESTS", "FINDS", "100%", "5%", "1%", "EXCLUDES"]
    rows = [
        [
            plan.stage.name,
            format_weight(plan.stage.mirror or 0) if plan.stage.mirrors else format_weight(plan.stage.weight),
            format_duration(plan.stage.hold),
            f"{plan.requests:.0f}",
            "-" if plan.finds is None else _share(plan.finds),
            *("-" if isinf(time) or time > plan.stage.hold else _time(time) for time in plan.times.values()),
            _share(plan.excludes),
        ]
        for plan in found.stages
    ]
    return grid(titles, rows, right=titles[1:])


_FEW_HOLD: Final = "the hold is extended, and at maxHold a person is asked"
_FEW_SILENT: Final = "they are silent there, and the stage goes on without them"


def _few_lines(found: "Plan") -> list[str]:
    """Rules with too few requests, those with the same need and the same stages together; inactive ones are left out."""
    from canary_rollout.model.units import format_duration

    inactive = {rule.rule for rule in found.rules if rule.state == "inactive"}
    stages: dict[str, list[Any]] = {}
    for few in found.too_few:
        if few.rule not in inactive:
            stages.setdefault(few.rule, []).append(few)
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for rule, those in stages.items():
        need = f"{those[0].needed} in {format_duration(those[0].window)}"
        where = ", ".join(f"{few.stage} ({few.expected:.0f})" for few in those)
        groups.setdefault((need, where, those[0].holds), []).append(rule)
    return [
        f"too few requests for a verdict in {where}, needed are {need}: {', '.join(rules)}. Widen the window, lower "
        f"minRequests, or raise the weight; else {_FEW_HOLD if holds else _FEW_SILENT}"
        for (need, where, holds), rules in groups.items()
    ]


def _rule_lines(found: "Plan") -> list[str]:
    inactive = [rule.rule for rule in found.rules if rule.state == "inactive"]
    lines = [f"{rule.rule}: {rule.message}" for rule in found.rules if rule.state == "problem"]
    if inactive:
        lines.append(f"inactive, since Prometheus has no data for them today: {', '.join(inactive)}")
    return lines


def _few(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.2g}" if share == 0 else f"{share * 100:.2g}%"


def _time(seconds: float) -> str:
    from canary_rollout.cli.view import about

    return about(max(1.0, seconds))
