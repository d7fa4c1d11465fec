"""``kubectl canary replay``: recorded scrapes through the comparison; no cluster and no Prometheus."""

import json
from collections.abc import Iterator
from math import inf, isnan, nan
from typing import IO, TYPE_CHECKING, Any, Final

import click

from canary_rollout.cli.errors import CliError, Exit

if TYPE_CHECKING:
    from canary_rollout.analysis.sequential import RawSample
    from canary_rollout.analysis.sequential.replay import Change, Replay

_ARMS: Final = ("canary", "stable")
_NO_NUMBER: Final = {"NaN": nan, "+Inf": inf, "Inf": inf, "-Inf": -inf}
_LATEST: Final = 1e11


class LineError(CliError):
    """A line that is no sample and no weight."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"line {number}: {problem}", Exit.USAGE)


@click.command(short_help="Recorded scrapes through the comparison: what would it have said, and when?")
@click.argument("samples", type=click.File("r", encoding="utf-8"), metavar="SAMPLES.jsonl")
@click.option(
    "--tick",
    type=click.FloatRange(0.1, 3600),
    default=15.0,
    metavar="SECONDS",
    help="Time between two looks; default 15.",
)
@click.option(
    "--policy",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="YAML with a resource's analysis and haltRules.",
)
@click.option("--output", "-o", type=click.Choice(["json"]), help="JSON lines; there is no other form.")
def replay(samples: IO[str], *, tick: float, policy: IO[str] | None, output: str | None) -> int:  # noqa: ARG001 - -o json says what is done anyway
    """Put the scrapes in SAMPLES.jsonl (- is standard input) through the comparison with stable.

    One JSON object a line, in order of arrival: {"ts": 12.3, "arrival": 12.6, "arm": "canary", "pod": "p1",
    "created": 0.0, "series": "requests", "value": 1234} with the series requests, errors, latency_bucket (with "le") and
    gauge:NAME, cumulative as scraped, and {"ts": 0, "weight": 50} (basis points) wherever the weight changes. What comes
    before the first weight is stable's history.

    Prints one JSON line per change of a verdict and last whether the evidence lets the rollout go on.
    Exit code 0: no verdict was a fail; 1: one was; 2: a line (its number is said) or the policy cannot be read.
    """
    from canary_rollout.cli.replay_policy import replay_for

    if isnan(tick):
        raise CliError("--tick is nan: write seconds, as in 15", Exit.USAGE)
    run = replay_for(policy, tick)
    for change in _changes(run, samples):
        _print(ts=change.ts, verdict=change.outcome.value, rule=change.rule, message=change.message)
    gate = run.gate()
    _print(gate="promote" if gate.promote else "hold", upperErrorRate=gate.upper_error_rate, message=gate.message)
    return Exit.REFUSED if run.failed else Exit.OK


def _print(**fields: object) -> None:
    click.echo(json.dumps(fields, ensure_ascii=False))


def _changes(run: "Replay", lines: IO[str]) -> "Iterator[Change]":
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield from _feed(run, _parse(number, line), number)
    except UnicodeDecodeError as error:
        raise LineError(number + 1, f"not UTF-8 ({error.reason})") from error
    yield from run.finish()


def _feed(run: "Replay", raw: dict[str, Any], number: int) -> "Iterator[Change]":
    ts = _time(raw, "ts", number)
    arrival = ts if raw.get("arrival") is None else _time(raw, "arrival", number)
    yield from run.until(arrival)
    if "weight" in raw:
        weight = raw["weight"]
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= 10_000:
            raise LineError(number, f"weight {weight!r} is no number of basis points: write an integer from 0 to 10000")
        run.weight(ts, weight)
    else:
        run.add(_sample(raw, ts, arrival, number))


def _parse(number: int, line: str) -> dict[str, Any]:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(number, f"not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise LineError(number, f"a JSON object was expected, found {line.strip()[:60]!r}")
    return raw


def _sample(raw: dict[str, Any], ts: float, arrival: float, number: int) -> "RawSample":
    from canary_rollout.analysis.sequential import RawSample

    arm, pod, series = raw.get("arm"), raw.get("pod"), raw.get("series")
    if arm not in _ARMS:
        raise LineError(number, f"arm is {arm!r}: write canary or stable")
    if not isinstance(pod, str) or not pod:
        raise LineError(number, f"pod is {pod!r}: write the pod's name")
    if not isinstance(series, str) or not _known(series):
        raise LineError(number, f"series is {series!r}: write requests, errors, latency_bucket or gauge:NAME")
    le = None
    if series == "latency_bucket":
        le = _number(raw.get("le"))
        if le is None or le != le or le <= 0:  # noqa: PLR0124 - NaN
            raise LineError(number, f'le is {raw.get("le")!r}: write the bucket\'s upper edge in seconds, or "+Inf"')
    value = _number(raw.get("value"))
    if value is None and raw.get("value") is not None:
        raise LineError(number, f"value is {raw['value']!r}: write a number")
    created = None if raw.get("created") is None else _time(raw, "created", number)
    return RawSample(ts, arm, pod, series, nan if value is None else value, le, created, arrival)


def _known(series: str) -> bool:
    return series in {"requests", "errors", "latency_bucket"} or (series.startswith("gauge:") and len(series) > 6)


def _time(raw: dict[str, Any], name: str, number: int) -> float:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LATEST:
        raise LineError(number, f"{name} is {value!r}: write seconds, as in 12.3")
    return float(value)


def _number(value: object) -> float | None:
    """A number, also one of those that JSON cannot write; ``None`` for anything else."""
    if isinstance(value, str):
        return _NO_NUMBER.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return inf if value > 0 else -inf
