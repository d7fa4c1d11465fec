"""What a route's controllers report: whether every Gateway it attaches to has taken it as it is now written."""

from collections.abc import Iterator
from typing import Any, Final

from canary_rollout.kube.port import Object

_MUST_HOLD: Final = ("Accepted", "ResolvedRefs")
_MUST_NOT: Final = "PartiallyInvalid"
_SHOWN: Final = 200


def pending(route: Object, settled: bool | None = None) -> str:
    """What is still missing until every parent has accepted this very generation; empty when nothing is.

    Conditions count only with the present ``observedGeneration``: one about an older generation says nothing about the
    weights written since (Gateway API, ``RouteParentStatus``).

    Args:
        route: as the API server has it.
        settled: whether silence counts as well (no report at all, or one without ``observedGeneration``), since enough
            time has passed since the write; ``None``: it never does.
    """
    spec, status = route.get("spec") or {}, route.get("status") or {}
    parents = spec.get("parentRefs") or []
    if not parents:
        return "the route names no Gateway (spec.parentRefs is empty): nobody serves it"
    reports = status.get("parents") or []
    return next((text for parent in parents for text in _missing(route, parent, reports, settled)), "")


def _missing(route: Object, parent: Object, reports: list[Object], settled: bool | None) -> Iterator[str]:
    name, namespace = f"{parent.get('name')}", route["metadata"].get("namespace")
    ours = [report for report in reports if _key(report.get("parentRef") or {}, namespace) == _key(parent, namespace)]
    if not ours and not settled:
        yield f"no controller has reported on {parent.get('kind', 'Gateway')} {name} yet"
    for report in ours:
        yield from _of_one(name, report, route["metadata"].get("generation"), settled)


def _of_one(gateway: str, report: Object, generation: Any, settled: bool | None) -> Iterator[str]:
    conditions: dict[str, Object] = {f"{one.get('type')}": one for one in report.get("conditions") or []}
    who = f"{report.get('controllerName', 'a controller')} (Gateway {gateway})"
    for kind in (*_MUST_HOLD, _MUST_NOT):
        found = conditions.get(kind)
        if found is None:
            if kind != _MUST_NOT:
                yield f"{who} has not said {kind} yet"
        elif "observedGeneration" not in found and not settled:
            if kind != _MUST_NOT:
                yield f"{who} " + (
                    "does not say which generation it has; taken to have this one soon"
                    if settled is not None
                    else "does not say which generation it has: set traffic.gatewayAPI.settle to a time to wait"
                )
        elif found.get("observedGeneration", generation) != generation:
            if kind != _MUST_NOT:
                yield f"{who} has not looked at generation {generation} yet"
        elif (found.get("status") == "True") != (kind != _MUST_NOT):
            words = " ".join(f"{found.get('message', '')}".split())
            yield f"{who} says {kind} is {found.get('status')} ({found.get('reason')}): {words:.{_SHOWN}}"


def _key(parent: Object, namespace: Any) -> tuple[Any, ...]:
    return (
        parent.get("group", "gateway.networking.k8s.io"),
        parent.get("kind", "Gateway"),
        parent.get("namespace", namespace),
        parent.get("name"),
        parent.get("sectionName"),
        parent.get("port"),
    )
