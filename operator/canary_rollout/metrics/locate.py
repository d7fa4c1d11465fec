"""Where each of a rollout's values is found. Pure."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from canary_rollout.analysis.readings import MeasureKey
from canary_rollout.metrics.errors import PresetError
from canary_rollout.metrics.own_query import render_own
from canary_rollout.metrics.places import (
    RAW,
    Alone,
    ArmKey,
    Firing,
    InBatch,
    Lookup,
    Nowhere,
    OtherThan,
    Place,
    RawLookup,
    Shape,
)
from canary_rollout.metrics.pods import ARM_LABEL, arm_value, pod_pattern
from canary_rollout.metrics.presets import CUSTOM, Presets, find, load
from canary_rollout.metrics.presets.formula import Query, render, render_other_alone
from canary_rollout.metrics.presets.schema import Formula, Identity
from canary_rollout.metrics.request import MetricRequest, VersionArm

GAUGES: Final = {"memory": "memory", "cpu": "cpu-cores"}
"""Gauges of the comparison, by name, and the measure of the ``pods`` set that each is taken from."""

TENANT_LABEL: Final = "bucket"
NO_VERSION: Final = (
    "the pod template has no label app.kubernetes.io/version (or version) that says which version it is: add one"
)
_VARIABLE: Final = re.compile(
    r"\$(namespace|rollout|service|deployment|port|route|version|revision|appVersion|app)(?![A-Za-z])"
)


def source_of(request: MetricRequest, name: str = "") -> Presets:
    """Return the source that a rollout (or a measure of it that names one) reads.

    Raises:
        PresetError: there is none of that name.
    """
    source = name or request.source
    if not source.startswith(CUSTOM):
        return load(source)
    for presets in request.own:
        if CUSTOM + presets.of.name == source and presets.of.traffic is not None:
            return presets
    raise PresetError(
        f"there is no source {source}: no preset set of that name with traffic is among metrics.presets or the operator's own"
    )


def locate(request: MetricRequest) -> Iterator[Lookup]:
    """Yield where a rollout's values are found, one look-up per measure."""
    for key in sorted(request.measures):
        if key.alerts:
            firing = _firing(key, request)
            yield Lookup(key, firing, firing)
        elif key.own:
            yield _own(key, key.what, request)
        else:
            yield _measure(key, request)


def locate_raw(request: MetricRequest) -> Iterator[RawLookup]:
    """Yield where the raw series of the comparison are found; nothing for a rollout that is not compared.

    Raises:
        PresetError: there is no such source.
    """
    if not request.compared:
        return
    source = source_of(request)
    traffic = source.of.traffic
    if traffic is None:
        raise PresetError(f"source {source.of.name} has no traffic to compare")
    names = ["requests", "errors"]
    if traffic.latency is not None:
        names.append("latency_bucket")
    if request.tenants:
        names += ["tenants:requests", "tenants:errors"]
    for name in names:
        yield _raw(request, source, name)
    if request.stable.replica_sets and request.canary.replica_sets:
        pods = load("pods")
        for name in GAUGES:
            yield _raw(request, pods, f"gauge:{name}")


def _measure(key: MeasureKey, request: MetricRequest) -> Lookup:
    try:
        source = source_of(request, key.source)
    except PresetError as error:
        return _nowhere(key, str(error))
    presets = source if key.source and key.what in source.measures else find(key.what, source, request.own)
    if presets is None:
        if any(key.what in load(name).measures for name in _SOURCES_WITH_ALL):
            missing = Nowhere(f"source {source.of.name} has no {key.what}", inactive=True)
            return Lookup(key, missing, missing)
        return _nowhere(key, f"there is no preset {key.what}; kubectl canary presets lists them")
    formula = presets.measures[key.what]
    if formula.promql is not None:
        return _own(key, formula.promql, request)
    return Lookup(key, *(_place(request, presets, formula, key, version) for version in ("stable", "canary")))


_SOURCES_WITH_ALL: Final = ("app", "envoy")
"""Sources that, taken together, have every measure that any source has."""


def _nowhere(key: MeasureKey, message: str) -> Lookup:
    return Lookup(key, Nowhere(message, mistake=True), Nowhere(message, mistake=True))


def _own(key: MeasureKey, query: str, request: MetricRequest) -> Lookup:
    own = key._replace(what=query)
    canary, stable = (render_own(own, request, arm) for arm in (request.canary, request.stable))
    missing = Nowhere("the query does not tell the versions apart; $pods, $service or $deployment do")
    return Lookup(key, missing if canary == stable else Alone(stable), Alone(canary))


def _firing(key: MeasureKey, request: MetricRequest) -> Firing:
    values = {
        "namespace": request.namespace,
        "service": request.canary.service,
        "deployment": request.canary.deployment,
    }
    text = re.sub(r"\$(namespace|service|deployment)", lambda found: values[found[1]], key.what)
    return Firing(text)


def _place(request: MetricRequest, presets: Presets, formula: Formula, key: MeasureKey, version: str) -> Place:
    arm = request.canary if version == "canary" else request.stable
    by = request.arms.by if presets.of.arms == "configured" else "pod"
    if (missing := _missing(request, presets, formula, version)) is not None:
        return missing
    if presets.identity is not None:
        labels, keys = _by_identity(request, presets.identity, version)
    elif by == "pod" and (arm.pods or arm.any_revision or len(arm.replica_sets) > 1):
        return _explicit(request, presets, formula, key, arm)
    elif by == "pod" and not arm.replica_sets:
        return Nowhere("")
    else:
        labels, keys = _configured(request, presets, arm, version, by)
    shape = _shape(request, presets, key.what, key.window, labels, weighted_only=key.weighted_only)
    scope = scope_of(request, presets)
    if formula.other_version is not None:
        return OtherThan(shape, scope, keys[0], arm.app_version)
    return InBatch(shape, scope, keys)


def _missing(request: MetricRequest, presets: Presets, formula: Formula, version: str) -> Nowhere | None:
    """Why a measure that needs to know what version the pods are cannot be asked."""
    arm = request.canary if version == "canary" else request.stable
    identity = presets.identity
    named = identity is not None and any(
        "$appVersion" in text for keys in (*identity.stable, *identity.canary) for text in keys
    )
    if (named or formula.other_version is not None) and not arm.app_version:
        return Nowhere(NO_VERSION, inactive=True)
    if named and version == "stable" and arm.app_version == request.canary.app_version:
        return Nowhere("both versions have the same version label", inactive=True)
    return None


def scope_of(request: MetricRequest, presets: Presets) -> str:
    """Return a rollout's value of the set's scope, mostly its namespace."""
    if presets.identity is None:
        return request.namespace
    return _filled(presets.identity.scope.pattern, request, request.stable, "stable")


def _configured(
    request: MetricRequest, presets: Presets, arm: VersionArm, version: str, by: str
) -> tuple[tuple[str, ...], tuple[ArmKey, ...]]:
    names, namespace = presets.of.labels, request.namespace
    if by == "pod":
        (replica_set,) = arm.replica_sets
        return (names.namespace, ARM_LABEL), _by_replica_set(namespace, replica_set)
    if by == "service":
        return (names.namespace, names.service), ((namespace, arm.service),)
    # Values such as `v2` are used by other apps of the namespace as well, so series that also have a `service` label must
    # name one of this app's two Services: the version's own first, then the other. Series without one are taken last.
    arms = request.arms
    value = (arms.canary if version == "canary" else arms.stable) or ""
    label = arms.label or ""
    if label == names.service:
        return (names.namespace, label), ((namespace, value),)
    other = request.stable.service if version == "canary" else request.canary.service
    services = (arm.service, other, "")
    return (names.namespace, names.service, label), tuple((namespace, service, value) for service in services)


@lru_cache(256)
def _by_replica_set(namespace: str, replica_set: str) -> tuple[ArmKey, ...]:
    """The same object for all measures of a version: there are dozens of them, of every rollout."""
    return ((namespace, arm_value(replica_set)),)


def _by_identity(
    request: MetricRequest, identity: Identity, version: str
) -> tuple[tuple[str, ...], tuple[ArmKey, ...]]:
    arm = request.canary if version == "canary" else request.stable
    lists = identity.canary if version == "canary" else identity.stable
    keys = [tuple(_filled(text, request, arm, version) for text in texts) for texts in lists]
    left_out = {
        place
        for place, label in enumerate(identity.labels)
        if label in identity.optional and not all(key[place] for key in keys)
    }
    kept = [place for place in range(len(identity.labels)) if place not in left_out]
    labels = tuple(identity.labels[place] for place in kept)
    return labels, tuple(tuple(key[place] for place in kept) for key in keys)


def _filled(text: str, request: MetricRequest, arm: VersionArm, version: str) -> str:
    if "$" not in text:
        return text
    values = {
        "namespace": request.namespace,
        "rollout": request.rollout,
        "service": arm.service,
        "deployment": arm.deployment,
        "port": request.port,
        "route": request.route,
        "version": version,
        "revision": arm.revision,
        "app": request.stable.service,
        "appVersion": arm.app_version,
    }
    return _VARIABLE.sub(lambda found: values[found[1]], text)


def _shape(
    request: MetricRequest,
    presets: Presets,
    measure: str,
    window: float,
    labels: tuple[str, ...],
    *,
    weighted_only: bool,
) -> Shape:
    status = request.status_label if _takes_status(presets, measure) else ""
    everybody = weighted_only and bool(presets.of.everybody)
    return _once(Shape(presets, measure, window, labels, status, everybody, request.phase))


@lru_cache(4096)
def _once(shape: Shape) -> Shape:
    """The same object for everybody who asks alike."""
    return shape


@lru_cache(1024)
def _takes_status(presets: Presets, measure: str) -> bool:
    """Whether a query holds the label of the HTTP status: shapes differ by it only where it matters."""
    if not presets.of.takes_status_label:
        return False
    if measure.startswith(RAW):
        return measure == f"{RAW}errors"
    return "$status" in presets.measures[measure].model_dump_json()


def _explicit(request: MetricRequest, presets: Presets, formula: Formula, key: MeasureKey, arm: VersionArm) -> Alone:
    """Query one version alone, all its pods together: quantiles of several ReplicaSets cannot be added afterwards."""
    names = presets.of.labels
    shape = _shape(request, presets, key.what, key.window, (names.namespace,), weighted_only=key.weighted_only)
    where = f'{names.namespace}="{request.namespace}",{names.pod}=~"{pod_pattern(arm)}"'
    query = query_of(shape, where)
    if formula.other_version is not None:
        return Alone(render_other_alone(formula, query, arm.app_version))
    return Alone(render(formula, query))


def query_of(shape: Shape, where: str) -> Query:
    """Return what a shape's formula is rendered for, in series that match ``where``."""
    of = shape.presets.of
    matchers = ",".join(part for part in (where, of.always, of.everybody if shape.weighted_only else "") if part)
    return Query(matchers, shape.labels, shape.window, of.labels.pod, shape.status_label or "status")


def _raw(request: MetricRequest, presets: Presets, name: str) -> RawLookup:
    identity, scope = presets.identity, scope_of(request, presets)
    by = request.arms.by if presets.of.arms == "configured" else "pod"
    together = False
    if identity is not None:
        labels, stable = _by_identity(request, identity, "stable")
        canary_labels, canary = _by_identity(request, identity, "canary")
        labels, stable = _without(canary_labels, labels, stable)
    elif by == "pod":
        labels, together = (presets.of.labels.namespace, presets.of.labels.pod), True
        stable, canary = (
            tuple((request.namespace, arm_value(replica_set)) for replica_set in sorted(arm.replica_sets))
            for arm in (request.stable, request.canary)
        )
    else:
        labels, stable = _configured(request, presets, request.stable, "stable", by)
        _, canary = _configured(request, presets, request.canary, "canary", by)
    series = name
    if name.startswith("tenants:"):
        series = name.removeprefix("tenants:")
    shape = _shape(
        request, presets, f"{RAW}{name}", 60.0 if name.startswith("gauge:") else 0.0, labels, weighted_only=True
    )
    return RawLookup(series, shape, scope, stable, canary, together)


def _without(
    wide: tuple[str, ...], narrow: tuple[str, ...], keys: tuple[ArmKey, ...]
) -> tuple[tuple[str, ...], tuple[ArmKey, ...]]:
    """Bring stable's keys to the canary's labels: where it has no value of an optional one, any value counts (``*``)."""
    if wide == narrow:
        return wide, keys
    return wide, tuple(tuple(dict(zip(narrow, key, strict=True)).get(label, ANY) for label in wide) for key in keys)


ANY: Final = "*"
"""In a raw look-up's key: any value of that label."""
