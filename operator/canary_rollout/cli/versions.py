"""``versions``: stable and canary side by side, with numbers asked of the rollout's Prometheus now."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from canary_rollout.cli.options import DURATION, name_argument, output_option, prometheus_options, target_options
from canary_rollout.cli.session import Connection, Session, session_of

if TYPE_CHECKING:
    from canary_rollout.analysis.readings import MeasureKey, Pair, Reading, Samples
    from canary_rollout.kube.port import Object
    from canary_rollout.metrics.request import MetricRequest


@dataclass(frozen=True, slots=True)
class Version:
    """One version as it is shown. ``None``: there is no number, and ``notes`` say why.

    Attributes:
        version: ``stable`` or ``canary``.
        share: the share of the traffic the data plane has confirmed, ``"5%"``.
        requests: requests in the window.
        error_rate: ratio 0..1.
        latency_p50: seconds.
        latency_p99: seconds.
        pods: pods that are there.
        images: images of its Deployment's containers, joined.
        notes: why numbers are missing, each once.
    """

    version: str
    revision: str
    deployment: str
    share: str
    requests: float | None
    error_rate: float | None
    latency_p50: float | None
    latency_p99: float | None
    pods: int
    images: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``-o json``: camelCase, absent instead of null."""
        from dataclasses import asdict

        from pydantic.alias_generators import to_camel

        return {to_camel(key): value for key, value in asdict(self).items() if value not in {None, ()}}


@click.command(short_help="Stable and canary side by side: share, requests, errors, latency.")
@name_argument
@click.option("--window", type=DURATION, help="Look back this far; default: the spec's metrics.window.")
@prometheus_options
@output_option
@target_options
@click.pass_context
def versions(ctx: click.Context, /, *, name: str, output: str | None, **given: Any) -> int:
    """Show both versions of rollout NAME: revision, share of the traffic, requests, error rate and latency."""
    session = session_of(ctx)

    async def show(connection: Connection) -> None:
        from canary_rollout.cli.find import get_rollout

        rollout = await get_rollout(connection, name)
        found = await gather(session, connection, rollout, given)
        if output:
            from canary_rollout.cli.show import print_data

            print_data([version.to_dict() for version in found], output)
        else:
            _print(session, found)

    return session.run(show)


async def gather(session: Session, connection: Connection, rollout: "Object", given: dict[str, Any]) -> list[Version]:
    """Both versions, stable first."""
    from canary_rollout.cli.view import view_of

    view = view_of(rollout, session.tools.now())
    workload = rollout["spec"]["workload"]
    sides = [await _side(connection, workload[version]["deployment"]) for version in ("stable", "canary")]
    request, trouble = await _request(connection, rollout, given)
    samples = None
    if request is not None:
        async with session.tools.sampler() as sampler:
            samples = await sampler.sample(request)
    found = []
    for place, (version, side) in enumerate(zip(("stable", "canary"), sides, strict=True)):
        numbers, notes = _numbers(request, samples, place)
        revision = view.stable_revision if version == "stable" else view.revision
        found.append(
            Version(
                version=version,
                revision=revision,
                deployment=workload[version]["deployment"],
                share=_share(view.confirmed_weight, version),
                requests=numbers.get("requests"),
                error_rate=numbers.get("error-rate"),
                latency_p50=numbers.get("latency-p50"),
                latency_p99=numbers.get("latency-p99"),
                pods=len(side.pods),
                images=side.images,
                notes=tuple(note for note in (trouble, side.trouble, *notes) if note),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Side:
    """What the cluster has of one version."""

    images: str = ""
    pods: "tuple[Object, ...]" = ()
    trouble: str = ""


async def _side(connection: Connection, deployment: str) -> _Side:
    from canary_rollout.cli.view import clean
    from canary_rollout.kube.port import DEPLOYMENTS, PODS, ForbiddenError, NotFoundError

    try:
        found = await connection.api.get(DEPLOYMENTS, connection.namespace, deployment)
        labels = found["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        pods, _ = await connection.api.list_all(PODS, connection.namespace, labels=selector)
    except NotFoundError:
        return _Side(trouble=f"Deployment {deployment} does not exist")
    except ForbiddenError as error:
        return _Side(trouble=clean(str(error)))
    containers = found["spec"]["template"]["spec"]["containers"]
    images = ", ".join(clean(str(container.get("image", ""))) for container in containers)
    return _Side(images, tuple(pod for pod in pods if not pod["metadata"].get("deletionTimestamp")))


async def _request(
    connection: Connection, rollout: "Object", given: dict[str, Any]
) -> "tuple[MetricRequest | None, str]":
    """What to ask Prometheus, or why nothing can be asked."""
    from pydantic import ValidationError

    from canary_rollout.cli.asking import Login, subject_of_cluster
    from canary_rollout.cli.view import clean
    from canary_rollout.metrics.errors import UnsafeValueError
    from canary_rollout.model.spec import CanaryRolloutSpec
    from canary_rollout.model.units import parse_duration

    login = Login.of(given)
    try:
        spec = CanaryRolloutSpec.model_validate(rollout["spec"])
        request = (await subject_of_cluster(connection, rollout, spec, login)).request(None)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return None, clean(f"no numbers: {where} of the spec cannot be read here ({first['msg']})")
    except UnsafeValueError as error:
        return None, clean(f"no numbers: {error}")
    length = parse_duration(given["window"]) if given["window"] is not None else spec.metrics.window
    return replace(request, measures=_measures(length)), ""


def _measures(window: float) -> "frozenset[MeasureKey]":
    from canary_rollout.analysis.readings import REQUESTS, MeasureKey

    return frozenset(MeasureKey(what, window) for what in (REQUESTS, "error-rate", "latency-p50", "latency-p99"))


def _numbers(
    request: "MetricRequest | None", samples: "Samples | None", place: int
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Values by measure, and why others are missing, each reason once."""
    if request is None or samples is None:
        return {}, ()
    values: dict[str, float] = {}
    notes: dict[str, None] = {}
    for key in sorted(request.measures):
        pair: Pair = samples.pair(key)
        reading: Reading = pair[place]
        if reading.value is not None:
            values[key.what] = reading.value
        else:
            notes[_why(reading, key.what, request)] = None
    return values, tuple(notes)


def _why(reading: "Reading", what: str, request: "MetricRequest") -> str:
    from canary_rollout.analysis.readings import ReadingKind
    from canary_rollout.cli.view import clean

    if reading.kind is ReadingKind.UNAVAILABLE:
        return clean(
            f"{request.server.url} did not answer from here ({reading.message}); where only the cluster reaches it, "
            "forward a port to it and pass --prometheus http://127.0.0.1:PORT"
        )
    if reading.kind in {ReadingKind.EMPTY, ReadingKind.NOT_A_NUMBER}:
        return f"no {what} in this window: no requests, or no such series"
    return clean(f"no {what}: {reading.message}")


def _share(confirmed: str, version: str) -> str:
    from canary_rollout.model.units import FULL, UnitError, format_weight, parse_weight

    try:
        canary = parse_weight(confirmed)
    except UnitError:
        return "-"
    return format_weight(canary if version == "canary" else FULL - canary)


def _print(session: Session, found: list[Version]) -> None:
    from canary_rollout.cli.render import grid

    titles = ["VERSION", "REVISION", "SHARE", "REQUESTS", "ERRORS", "P50", "P99"]
    rows = [
        [
            version.version,
            version.revision or "-",
            version.share,
            "-" if version.requests is None else f"{version.requests:.0f}",
            "-" if version.error_rate is None else f"{version.error_rate:.2%}",
            _milliseconds(version.latency_p50),
            _milliseconds(version.latency_p99),
        ]
        for version in found
    ]
    console = session.tools.console()
    console.print(grid(titles, rows, right=titles[2:]))
    for version in found:
        pods = f"{version.pods} pod{'' if version.pods == 1 else 's'}"
        # Below the table, because an image's name takes the width of all the columns together.
        console.print(
            ", ".join(part for part in (f"{version.version}: {version.deployment}", pods, version.images) if part)
        )
    for note in dict.fromkeys(note for version in found for note in version.notes):
        whose = [version.version for version in found if note in version.notes]
        click.echo(note if len(whose) == len(found) else f"{whose[0]}: {note}", err=True)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}ms" if seconds < 10 else f"{seconds:.1f}s"
