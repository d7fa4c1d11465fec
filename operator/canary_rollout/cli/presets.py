"""``presets``: the ready-made measures, where each is found, and the very query the operator would send."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from canary_rollout.cli.options import DURATION, output_option, own_presets
from canary_rollout.cli.session import session_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from canary_rollout.metrics.presets import Entry, Presets
    from canary_rollout.metrics.request import MetricRequest

_ROUTERS: Final = {
    "ingress-nginx": {"ingressNginx": {"ingress": "checkout"}},
}
_NAMES: Final = {"service": "checkout", "deployment": "checkout"}


@click.command(short_help="Ready-made measures, where each is found, and its PromQL.")
@click.argument("name", required=False)
@click.option("--source", metavar="NAME", help="Only this source (metrics.source), such as istio.")
@click.option(
    "--window", type=DURATION, default="5m", show_default=True, help="Range of the rates in the PromQL shown."
)
@click.option("--presets", "own", multiple=True, metavar="FILE", help="Presets of your own as well (a YAML file).")
@click.option("--file", "-f", metavar="FILE", help="Show the PromQL for the rollout in this manifest.")
@output_option
@click.pass_context
def presets(ctx: click.Context, /, *, name: str | None, output: str | None, **given: Any) -> int:
    """List what `preset:` of a halt rule or gate can be; with NAME, show what is asked of Prometheus.

    The PromQL is for an application `checkout` in namespace `shop` with pods of two Deployments, or for the rollout of
    a manifest (-f).
    """
    from canary_rollout.metrics.presets import catalogue

    sets = own_presets(given["own"])
    entries = catalogue(sets)
    if given["source"]:
        known = [entry.set for entry in entries]
        if given["source"] not in known:
            raise click.UsageError(_unknown("source", given["source"], known))
        entries = tuple(entry for entry in entries if entry.set == given["source"])
    if name is not None:
        names = [entry.name for entry in entries]
        if name not in names:
            raise click.UsageError(_unknown("preset", name, names))
        entries = tuple(entry for entry in entries if entry.name == name)
    queries = [_query(entry, sets, given) for entry in entries] if name is not None or output else []
    if output:
        from canary_rollout.cli.show import print_data

        print_data([_data(entry, query) for entry, query in zip(entries, queries, strict=True)], output)
    elif name is not None:
        _explain(entries, queries)
    else:
        _list(ctx, entries)
    return 0


def _unknown(kind: str, name: str, known: "Sequence[str]") -> str:
    from difflib import get_close_matches

    distinct = list(dict.fromkeys(known))
    close = get_close_matches(name, distinct, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(distinct)}"
    return f"there is no {kind} {name}: {hint}"


def _data(entry: "Entry", query: str) -> dict[str, Any]:
    raw = asdict(entry)
    return {**raw, "unit": str(entry.unit), "series": list(entry.series), "promql": query}


def _list(ctx: click.Context, entries: "Sequence[Entry]") -> None:
    """A line per measure: what it is, its unit, and the sets that have it."""
    from canary_rollout.cli.render import grid

    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.name, []).append(entry)
    sources = {entry.set for entry in entries if entry.source}
    rows = []
    for name, those in found.items():
        where = {entry.set for entry in those}
        rows.append([name, f"{those[0].unit}" or "-", _where(where, sources), those[0].description.rstrip(".")])
    console = session_of(ctx).tools.console()
    console.print(grid(["PRESET", "UNIT", "FOUND IN", "WHAT IT IS"], rows))
    if sources:
        console.print(f"\nSources (metrics.source): {', '.join(sorted(sources))}")


def _where(where: set[str], sources: set[str]) -> str:
    """The sets that have a measure, in few words."""
    if len(sources) > 1 and where >= sources:
        return "every source"
    return ", ".join(sorted(where)) if len(where) <= 2 else f"{len(where)} sources"


def _explain(entries: "Sequence[Entry]", queries: "Sequence[str]") -> None:
    for place, (entry, query) in enumerate(zip(entries, queries, strict=True)):
        if place:
            click.echo()
        unit = f" ({entry.unit})" if entry.unit else ""
        click.echo(f"{entry.name} of {'source ' if entry.source else ''}{entry.set}{unit}: {entry.description}")
        if entry.needs:
            click.echo(f"needs: {entry.needs}")
        click.echo(f"reads: {', '.join(entry.series)}")
        click.echo(f"  {query}")


def _query(entry: "Entry", own: "list[Presets]", given: dict[str, Any]) -> str:
    """The query the operator sends for the canary, or why there is none."""
    from canary_rollout.analysis.readings import MeasureKey
    from canary_rollout.metrics.locate import locate
    from canary_rollout.metrics.plan import Alone, Firing, Nowhere, render_batch
    from canary_rollout.model.units import parse_duration

    key = MeasureKey(entry.name, parse_duration(given["window"]))
    (lookup,) = locate(_request(entry, key, own, given["file"]))
    place = lookup.canary
    if isinstance(place, Alone):
        return place.text
    if isinstance(place, (Nowhere, Firing)):
        return f"# {getattr(place, 'message', '') or 'nothing is asked'}"
    return render_batch(place.shape, (place.scope,)).text


def _request(entry: "Entry", key: Any, own: "list[Presets]", file: str | None) -> "MetricRequest":
    from dataclasses import replace

    from canary_rollout.cli.manifest import one_rollout
    from canary_rollout.cli.offline import spec_of
    from canary_rollout.metrics.presets import CUSTOM
    from canary_rollout.metrics.request import MetricRequest
    from canary_rollout.model.metrics import SOURCES
    from canary_rollout.model.spec import CanaryRolloutSpec

    mine = entry.source and entry.set not in SOURCES
    source = CUSTOM + entry.set if mine else entry.set if entry.source else "app"
    if file is None:
        workload = {
            "stable": _NAMES,
            "canary": {key: f"{value}-canary" for key, value in _NAMES.items()},
        }
        traffic = _ROUTERS.get(entry.set, {"nginx": {"service": "edge"}})
        metrics = {"prometheus": "http://prometheus.monitoring:9090", "source": source}
        raw = {"workload": workload, "traffic": traffic, "metrics": metrics}
        namespace, name, spec = "shop", "checkout", CanaryRolloutSpec.model_validate(raw)
    else:
        manifest = one_rollout(file)
        namespace, name = str(manifest.metadata.get("namespace", "default")), str(manifest.metadata.get("name"))
        spec = spec_of(manifest)
    sides = (frozenset({f"{version.deployment}-5d4c3b2a1"}) for version in (spec.workload.stable, spec.workload.canary))
    request = MetricRequest.of(namespace, name, spec, None, *sides, app_versions=("1.0", "2.0"), own=tuple(own))
    return replace(request, measures=frozenset({key}), source=source)
