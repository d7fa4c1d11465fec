"""What is wrong with a CanaryRollout, found without a cluster: each problem with its line, its field and a way out."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from canary_rollout.cli.manifest import Manifest, Place
from canary_rollout.cli.offline import inexpressible, router_of, router_problems, uncounted_tenants
from canary_rollout.errors import CanaryRolloutError
from canary_rollout.kube.port import CANARY_ROLLOUTS
from canary_rollout.metrics.presets import CUSTOM, Presets, known_measures
from canary_rollout.model.crd import LONGEST_NAME
from canary_rollout.model.effective import resolve
from canary_rollout.model.explain import located_problems, path_of
from canary_rollout.model.fields import shown
from canary_rollout.model.rule_sets import HaltRuleSetSpec, RuleSetError, RuleSetReference
from canary_rollout.model.spec import Action, CanaryRolloutSpec, Measure
from canary_rollout.model.standard_rules import STANDARD_NAMES
from canary_rollout.model.units import format_duration, format_weight

Spec = TypeVar("Spec", bound=BaseModel)

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TOP: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_VARIABLES: Final = ("namespace", "deployment", "service", "pods", "window")
_VARIABLE: Final = re.compile(r"\$\{?([a-zA-Z_]\w*)")
_APART: Final = frozenset({"deployment", "service", "pods"})
_NOT_APART: Final = (
    "the query does not tell the versions apart, so it is the same for both and cannot be compared with stable: "
    "$pods, $service or $deployment do"
)
_MEASURED: Final = frozenset({"preset", "query", "alert"})
_CLOSING: Final = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or that is likely not meant.

    Attributes:
        source: the file.
        line: from 1.
        field: ``spec.stages[1].weight``; empty for the whole object.
        message: what is wrong, with which value, and what to do.
        warning: whether the object works all the same.
    """

    source: str
    line: int
    field: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{self.source}:{self.line}: {'warning: ' if self.warning else ''}{where}{self.message}"


def examine(
    manifest: Manifest,
    namespace: str = "default",
    sets: Mapping[tuple[str, str], HaltRuleSetSpec] | None = None,
    presets: Iterable[Presets] = (),
) -> tuple[CanaryRolloutSpec | None, list[Problem]]:
    """The effective spec (``None`` where it cannot be read) and every problem, in the order of the file.

    Args:
        manifest: a CanaryRollout.
        namespace: where it goes if it does not say.
        sets: rule sets that are known, by kind and name.
        presets: preset sets of the user's own.
    """
    found = [*_envelope(manifest), *_names(manifest, LONGEST_NAME)]
    spec = _spec(manifest, CanaryRolloutSpec, found)
    if spec is not None:
        found += _router(manifest, spec, namespace)
        found += _measures(manifest, spec, known_measures(presets))
        found += [
            *_switched_off(manifest, spec),
            *_source(manifest, spec, presets),
            *_sticky(manifest, spec),
        ]
        spec = _with_sets(manifest, spec, sets or {}, found)
        found += _never(manifest, spec)
    return spec, _in_order(found)


def examine_set(manifest: Manifest) -> tuple[HaltRuleSetSpec | None, list[Problem]]:
    """The spec of a HaltRuleSet or ClusterHaltRuleSet (``None`` where it cannot be read) and every problem."""
    found = [*_envelope(manifest), *_names(manifest, 253)]
    spec = _spec(manifest, HaltRuleSetSpec, found)
    if spec is not None:
        for index, template in enumerate(spec.halt_rules):
            place = ("spec", "haltRules", index)
            if template.preset is not None and template.preset not in known_measures():
                hint = _close(template.preset, known_measures(), "`kubectl canary presets` lists them")
                words = f"there is no ready-made preset {template.preset}: {hint}"
                found.append(_at(manifest, (*place, "preset"), words, warning=True))
            trouble = _unbalanced(template.query) if template.query is not None else ""
            if trouble:
                found.append(_at(manifest, (*place, "query"), trouble))
    return spec, _in_order(found)


def _spec(manifest: Manifest, model: type[Spec], found: list[Problem]) -> Spec | None:
    if not isinstance(manifest.raw.get("spec"), dict):
        return None
    try:
        return model.model_validate(manifest.raw["spec"])
    except ValidationError as error:
        found += [_at(manifest, ("spec", *place), sentence) for place, sentence in located_problems(error)]
        return None


def _in_order(found: list[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(found), key=lambda problem: (problem.line, problem.warning, problem.field))


def _with_sets(
    manifest: Manifest,
    spec: CanaryRolloutSpec,
    sets: Mapping[tuple[str, str], HaltRuleSetSpec],
    found: list[Problem],
) -> CanaryRolloutSpec:
    """The spec with the rules of its sets; those that are not among the files are in the cluster, perhaps."""

    def find(reference: RuleSetReference) -> HaltRuleSetSpec | str:
        return sets.get((reference.kind, reference.name), "it is not among these files")

    for index, reference in enumerate(spec.halt_rule_sets):
        place = ("spec", "haltRuleSets", index)
        known = sets.get((reference.kind, reference.name))
        if known is None:
            words = f"{reference.kind} {reference.name} is not among these files: its rules are not looked at"
            found.append(_at(manifest, place, words, warning=True))
            continue
        try:
            known.instantiate(reference.variables)
        except RuleSetError as error:
            found.append(_at(manifest, place, f"{reference.kind} {reference.name}: {error}"))
    effective = resolve(spec, find)
    found += [_at(manifest, ("spec", "haltRules"), words) for words in effective.problems if "more than the" in words]
    return effective.spec


def _at(manifest: Manifest, place: Place, message: str, *, warning: bool = False) -> Problem:
    field = path_of(place[1:], str(place[0])) if place else ""
    return Problem(manifest.source, manifest.line(place), field, message, warning)


def _envelope(manifest: Manifest) -> Iterator[Problem]:
    """apiVersion, metadata, and keys that stand where none do."""
    raw = manifest.raw
    for place, line in manifest.twice:
        yield Problem(
            manifest.source,
            line,
            path_of(place[1:], str(place[0])),
            "stands here twice; kubectl refuses it: remove one",
        )
    if raw.get("apiVersion") != CANARY_ROLLOUTS.api_version:
        yield _at(
            manifest,
            ("apiVersion",),
            f"{shown(raw.get('apiVersion'))} is not {CANARY_ROLLOUTS.api_version}: write that",
        )
    for key in raw:
        if key not in _TOP:
            close = get_close_matches(str(key), _TOP, n=1)
            yield _at(
                manifest,
                (str(key),),
                f"there is no such field: {f'did you mean {close[0]}?' if close else 'remove it'}",
            )
    if "spec" not in raw:
        yield _at(manifest, ("spec",), "is required: add it")
    elif not isinstance(raw["spec"], dict):
        yield _at(manifest, ("spec",), f"{shown(raw['spec'])} is of the wrong type: write a mapping of fields")


def _names(manifest: Manifest, longest: int) -> Iterator[Problem]:
    """metadata.name and metadata.namespace."""
    name = manifest.metadata.get("name")
    if name is None:
        yield _at(manifest, ("metadata", "name"), "is required: add it")
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
        yield _at(
            manifest,
            ("metadata", "name"),
            f'{shown(name)} is not a name: use lower-case letters, digits, "-" and ".", as in checkout',
        )
    elif len(name) > longest:
        yield _at(
            manifest,
            ("metadata", "name"),
            f"the name has {len(name)} characters and may have {longest}, because other objects are named after it: "
            "choose a shorter one",
        )
    namespace = manifest.metadata.get("namespace")
    if namespace is not None and (not isinstance(namespace, str) or not _LABEL.fullmatch(namespace)):
        yield _at(manifest, ("metadata", "namespace"), f"{shown(namespace)} is not the name of a namespace")


def _router(manifest: Manifest, spec: CanaryRolloutSpec, namespace: str) -> Iterator[Problem]:
    """What the router named cannot express: in its own words where it has any."""
    kind, name = spec.traffic.router, str(manifest.metadata.get("name"))
    try:
        can = router_of(spec, namespace, name).capabilities()
        said = router_problems(spec, namespace, name)
    except CanaryRolloutError as error:
        yield _at(manifest, ("spec", "traffic", kind), str(error))
        return
    for sentence in said:
        place, words = _placed(spec, sentence)
        yield _at(manifest, place, words)
    for index, stage, near in inexpressible(spec, can):
        if not any(sentence.startswith(f"stage {stage.name}:") for sentence in said):
            words = (
                f"{kind} cannot express {format_weight(stage.weight)}, only multiples of {format_weight(can.step)}: "
                f"choose {near}, or another router"
            )
            yield _at(manifest, ("spec", "stages", index, "weight"), words)
    text = " ".join(said)
    if spec.traffic.sticky is not None and not can.sticky and "sticky" not in text:
        words = f"{kind} cannot keep tenants on a version: remove it, or choose another router"
        yield _at(manifest, ("spec", "traffic", "sticky"), words)
    for index, stage in enumerate(spec.stages):
        if stage.cohort is not None and not can.cohorts and "cohort" not in text:
            words = f"{kind} cannot route people by header or cookie: remove it, or choose another router"
            yield _at(manifest, ("spec", "stages", index, "cohort"), words)
        if stage.mirrors and not can.mirror and "mirror" not in text:
            way = "set traffic.istio.mirror to true" if kind == "istio" else "remove the stage"
            words = f"{kind} cannot copy requests to the canary as it is set: {way}, or choose another router"
            yield _at(manifest, ("spec", "stages", index, "mirror"), words)


def _placed(spec: CanaryRolloutSpec, sentence: str) -> tuple[tuple[int | str, ...], str]:
    """Where a router's sentence belongs, and the sentence without that place."""
    if found := re.match(r"stage ([^:\s]+): ", sentence):
        names = [stage.name for stage in spec.stages]
        if found[1] in names:
            words = sentence[found.end() :]
            field = "cohort" if words.startswith("cohort") or "its cohort" in words else "weight"
            return ("spec", "stages", names.index(found[1]), field), words
    if found := re.match(r"traffic\.([a-zA-Z.]+): ", sentence):
        return ("spec", "traffic", *found[1].split(".")), sentence[found.end() :]
    for field in ("sticky", "pin"):
        if f"traffic.{field}" in sentence:
            return ("spec", "traffic", field), sentence
    return ("spec", "traffic", spec.traffic.router), sentence


def _measures(manifest: Manifest, spec: CanaryRolloutSpec, presets: frozenset[str]) -> Iterator[Problem]:
    """Presets that nobody has, servers that are not named, and queries that cannot be meant."""
    servers = [server.name for server in spec.metrics.servers]
    for place, measure in measures_of(spec):
        if measure.preset is not None and measure.preset not in presets:
            hint = _close(measure.preset, presets, "`kubectl canary presets` lists them")
            # A ConfigMap that is not among the files may well have it.
            elsewhere = bool(spec.metrics.presets) and "did you mean" not in hint
            words = f"there is no preset {measure.preset} here: pass those of metrics.presets with --presets"
            yield _at(
                manifest,
                (*place, "preset"),
                words if elsewhere else f"there is no preset {measure.preset}: {hint}",
                warning=elsewhere,
            )
        if measure.query is not None:
            for message, warning in query_problems(measure.query):
                yield _at(manifest, (*place, "query"), message, warning=warning)
        if measure.server is not None and measure.server not in servers:
            hint = _close(measure.server, servers, "add it there")
            yield _at(manifest, (*place, "server"), f"there is no {measure.server} in metrics.servers: {hint}")


def _switched_off(manifest: Manifest, spec: CanaryRolloutSpec) -> Iterator[Problem]:
    """Rules that are switched off and that nobody has: the one that was meant goes on."""
    if spec.halt_rule_sets:
        return  # it may be one of theirs
    for index, rule in enumerate(_written_rules(manifest)):
        if not isinstance(rule, dict) or rule.get("enabled") is not False or _MEASURED & rule.keys():
            continue
        name = str(rule.get("name"))
        if name not in STANDARD_NAMES:
            hint = _close(name, STANDARD_NAMES, "docs/halt-rules.md lists the standard ones")
            words = f"there is no halt rule {name} to switch off: {hint}"
            yield _at(manifest, ("spec", "haltRules", index, "name"), words, warning=True)


def _source(manifest: Manifest, spec: CanaryRolloutSpec, presets: Iterable[Presets]) -> Iterator[Problem]:
    """A source of the user's own that no set here has."""
    source = spec.metrics.source
    if not source.startswith(CUSTOM) or source.removeprefix(CUSTOM) in {own.of.name for own in presets}:
        return
    if spec.metrics.presets:
        words = f"source {source} is not looked at: pass the sets of metrics.presets with --presets"
    else:
        words = f"no set has source {source}, unless the operator's --presets-dir does: name its ConfigMap in metrics.presets"
    yield _at(manifest, ("spec", "metrics", "source"), words, warning=True)


def _sticky(manifest: Manifest, spec: CanaryRolloutSpec) -> Iterator[Problem]:
    """A comparison that is to roll back and can only pause."""
    lack = uncounted_tenants(spec)
    if not lack or not spec.analysis.enabled or spec.analysis.actions.errors is not Action.ROLLBACK:
        return
    words = (
        f"{lack}, and one tenant who always fails would look like a broken version: the comparison's error test pauses "
        "instead of rolling back (docs/stickiness.md). If that is meant, say analysis.actions.errors: Pause"
    )
    yield _at(manifest, ("spec", "traffic", "sticky"), words, warning=True)


def _close(name: str, known: Iterable[str], otherwise: str) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else otherwise


def measures_of(spec: CanaryRolloutSpec) -> Iterator[tuple[tuple[int | str, ...], Measure]]:
    """Every rule and gate as it is written, with its place in the object."""
    for index, rule in enumerate(spec.halt_rules):
        yield ("spec", "haltRules", index), rule
    for place, stage in enumerate(spec.stages):
        lists: tuple[tuple[str, tuple[Measure, ...]], ...] = (
            ("entry", stage.entry),
            ("exit", stage.exit),
            ("haltRules", stage.halt_rules),
        )
        for field, measures in lists:
            for index, measure in enumerate(measures):
                yield ("spec", "stages", place, field, index), measure


def query_problems(query: str) -> Iterator[tuple[str, bool]]:
    """What is wrong with a query of one's own, and whether it is only a warning; no parser, but what people really miss."""
    if trouble := _unbalanced(query):
        yield trouble, False
    names = set(_VARIABLE.findall(query))
    for name in sorted(names - set(_VARIABLES)):
        known = ", ".join(f"${variable}" for variable in _VARIABLES)
        close = get_close_matches(name, _VARIABLES, n=1)
        hint = f"did you mean ${close[0]}?" if close else f"known are {known}"
        yield f"${name} is not filled in: {hint}", True
    if not names & _APART:
        yield _NOT_APART, True


def _unbalanced(query: str) -> str:
    """Brackets and quotes that do not match, in words; empty when all do."""
    open_, quote, skip = [], "", False
    for character in query:
        if skip:
            skip = False
        elif quote:
            skip = character == "\\" and quote != "`"
            quote = "" if character == quote else quote
        elif character in "\"'`":
            quote = character
        elif character in "([{":
            open_.append(character)
        elif character in _CLOSING and (not open_ or open_.pop() != _CLOSING[character]):
            return f'the query has a "{character}" too many: Prometheus would refuse it'
    if quote:
        return f"the query opens {quote} and does not close it: Prometheus would refuse it"
    return f'the query opens "{open_[-1]}" and does not close it: Prometheus would refuse it' if open_ else ""


def _never(manifest: Manifest, spec: CanaryRolloutSpec) -> Iterator[Problem]:
    """Rules that cannot have failed before any stage is over."""
    longest = max((stage.longest_hold for stage in spec.active_stages), default=0.0)
    written = {rule.get("name"): index for index, rule in enumerate(_written_rules(manifest)) if isinstance(rule, dict)}
    for rule in spec.rules_for(None):
        if rule.enabled and rule.for_ > longest and rule.action is not Action.ALERT:
            mine = rule.name in written
            place = ("spec", "haltRules", written[rule.name], "for") if mine else ("spec", "stages")
            yield _at(
                manifest,
                place,
                f"no stage is held for {format_duration(rule.for_)}, so {rule.name} can never stop anything: "
                "shorten it, or hold a stage longer",
                warning=True,
            )


def _written_rules(manifest: Manifest) -> list[Any]:
    rules = manifest.raw["spec"].get("haltRules")
    return rules if isinstance(rules, list) else []
