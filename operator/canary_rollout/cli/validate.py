"""``validate``: manifests looked at without a cluster."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.options import output_option, own_presets, target_options
from canary_rollout.cli.session import session_of

if TYPE_CHECKING:
    from canary_rollout.cli.lint import Problem
    from canary_rollout.cli.manifest import Manifest
    from canary_rollout.metrics.presets import Presets
    from canary_rollout.model.rule_sets import HaltRuleSetSpec
    from canary_rollout.model.spec import CanaryRolloutSpec


@dataclass(frozen=True, slots=True)
class Examined:
    """One CanaryRollout and what was found; ``spec`` is ``None`` where it cannot be read."""

    manifest: "Manifest"
    spec: "CanaryRolloutSpec | None"
    problems: "list[Problem]" = field(default_factory=list)


@click.command(short_help="Look at manifests without a cluster: every problem with its line.")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(allow_dash=True))
@click.option("--presets", "own", multiple=True, metavar="FILE", help="Presets of your own (a YAML file of metrics).")
@click.option("--strict", is_flag=True, help="Warnings are problems too.")
@output_option
@target_options
@click.pass_context
def validate(
    ctx: click.Context, *, files: tuple[str, ...], own: tuple[str, ...], strict: bool, output: str | None
) -> int:
    """Look at the CanaryRollouts in FILE… (- is standard input) without a cluster.

    Said is everything the API server or the operator would refuse: fields, values, weights that the router cannot
    express (with the nearest it can), presets and variables that do not exist. Objects of other kinds are passed over.

    Exit code 0: all are valid; 1: there is a problem; 2: a file is not there.
    """
    from canary_rollout.cli.lint import examine
    from canary_rollout.kube.port import CANARY_ROLLOUTS

    manifests, problems = _read_all(files)
    presets = [*own_presets(own), *_config_maps(manifests)]
    sets, valid, found = _rule_sets(manifests)
    problems += found
    seen = [
        Examined(manifest, *examine(manifest, _namespace(ctx, manifest), sets, presets))
        for manifest in manifests
        if manifest.kind == CANARY_ROLLOUTS.kind
    ]
    _twins(seen)
    problems += [problem for one in seen for problem in one.problems]
    passed_over = len(manifests) - len(seen) - sum(_is_rule_set(manifest) for manifest in manifests)
    if passed_over == len(manifests) and not problems:
        raise click.UsageError(f"there is no CanaryRollout in {', '.join(files)}")
    bad = any(strict or not problem.warning for problem in problems)
    if output:
        from canary_rollout.cli.show import print_data

        print_data(_data(seen, problems, valid=not bad), output)
    else:
        _print(seen, problems, valid, passed_over)
    return Exit.REFUSED if bad else Exit.OK


def _read_all(files: tuple[str, ...]) -> "tuple[list[Manifest], list[Problem]]":
    """All objects of the files, and what kept others from being read."""
    from canary_rollout.cli.lint import Problem
    from canary_rollout.cli.manifest import UnreadableError, read

    manifests: list[Manifest] = []
    problems: list[Problem] = []
    for file in files:
        try:
            manifests += read(file)
        except UnreadableError as error:
            problems.append(Problem(error.source, error.line, "", error.problem))
    return manifests, problems


def _is_rule_set(manifest: "Manifest") -> bool:
    from canary_rollout.model.rule_sets import CLUSTER, NAMESPACED

    return manifest.kind in {NAMESPACED, CLUSTER}


def _rule_sets(
    manifests: "list[Manifest]",
) -> "tuple[dict[tuple[str, str], HaltRuleSetSpec], list[str], list[Problem]]":
    """The rule sets that can be read, by kind and name; a line for each that is valid; and the problems of all."""
    from canary_rollout.cli.lint import examine_set

    sets: dict[tuple[str, str], HaltRuleSetSpec] = {}
    valid: list[str] = []
    problems: list[Problem] = []
    for manifest in filter(_is_rule_set, manifests):
        rule_set, found = examine_set(manifest)
        problems += found
        if rule_set is None:
            continue
        sets[manifest.kind, str(manifest.metadata.get("name"))] = rule_set
        if not any(not problem.warning for problem in found):
            valid.append(
                f"{manifest.source}:{manifest.line()}: {manifest.metadata.get('name')} is valid: {manifest.kind}, "
                f"{len(rule_set.halt_rules)} halt rules"
            )
    return sets, valid, problems


def _config_maps(manifests: "list[Manifest]") -> "list[Presets]":
    """Preset sets in the ConfigMaps of the files; those that are none are no preset sets."""
    from canary_rollout.metrics.errors import PresetError
    from canary_rollout.metrics.presets import prepare, read

    named = {
        name
        for manifest in manifests
        if manifest.kind == "CanaryRollout" and isinstance(manifest.raw.get("spec"), dict)
        for name in (manifest.raw["spec"].get("metrics") or {}).get("presets") or ()
    }
    found = []
    for manifest in manifests:
        if manifest.kind == "ConfigMap" and manifest.metadata.get("name") in named:
            for key, text in (manifest.raw.get("data") or {}).items():
                try:
                    found.append(prepare(read(str(text), f"{manifest.metadata['name']}/{key}")))
                except PresetError as error:
                    raise CliError(f"{manifest.source}:{manifest.line(('data', key))}: {error}") from error
    return found


def _namespace(ctx: click.Context, manifest: "Manifest") -> str:
    return session_of(ctx).target.namespace or str(manifest.metadata.get("namespace", "default"))


def _twins(seen: list[Examined]) -> None:
    """Add the problems of rollouts that would fight: of one name, or over one Deployment."""
    from canary_rollout.cli.lint import Problem

    owners: dict[tuple[str, ...], Examined] = {}
    for one in seen:
        manifest, spec = one.manifest, one.spec
        owned: list[tuple[str, str, tuple[str, ...]]] = [
            ("name", str(manifest.metadata.get("name")), ("metadata", "name"))
        ]
        if spec is not None:
            owned += [
                ("deployment", version.deployment, ("spec", "workload", role, "deployment"))
                for role, version in (("stable", spec.workload.stable), ("canary", spec.workload.canary))
            ]
        for kind, thing, place in owned:
            first = owners.setdefault((str(manifest.metadata.get("namespace", "")), kind, thing), one)
            if first is one:
                continue
            at = f"{first.manifest.source}:{first.manifest.line()}"
            message = (
                f"{thing} stands at {at} as well: only one of them would be kept"
                if kind == "name"
                else f"Deployment {thing} belongs to the CanaryRollout at {at} already: two cannot move the same one"
            )
            # Two files may well be alternatives; one file is applied as a whole.
            apart = manifest.source != first.manifest.source
            one.problems.append(Problem(manifest.source, manifest.line(place), ".".join(place), message, warning=apart))


def _data(seen: list[Examined], problems: "list[Problem]", *, valid: bool) -> dict[str, Any]:
    return {
        "valid": valid,
        "rollouts": [
            {
                "source": one.manifest.source,
                "line": one.manifest.line(),
                "name": one.manifest.metadata.get("name"),
                "valid": not any(not problem.warning for problem in one.problems),
            }
            for one in seen
        ],
        "problems": [asdict(problem) for problem in problems],
    }


def _print(seen: list[Examined], problems: "list[Problem]", valid: list[str], passed_over: int) -> None:
    """Problems as a compiler prints them, then a line per rollout that has none."""
    from canary_rollout.cli.view import clean
    from canary_rollout.model.units import format_weight

    for problem in problems:
        click.echo(clean(str(problem)))
    for line in valid:
        click.echo(clean(line))
    for one in seen:
        if one.spec is None or any(not problem.warning for problem in one.problems):
            continue
        weights = ", ".join(format_weight(stage.weight) for stage in one.spec.active_stages)
        rules = sum(rule.enabled for rule in one.spec.rules_for(None))
        click.echo(
            f"{one.manifest.source}:{one.manifest.line()}: {one.manifest.metadata.get('name')} is valid: "
            f"{one.spec.traffic.router}, stages {weights}, {rules} halt rule{'' if rules == 1 else 's'}"
        )
    if passed_over:
        click.echo(f"passed over: {passed_over} object{'' if passed_over == 1 else 's'} of other kinds", err=True)
