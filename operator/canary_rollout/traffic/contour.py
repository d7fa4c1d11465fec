"""Contour: weights of Services in an HTTPProxy of the user's.

Weights are proportions; we write them out of 10,000. A Service without a weight counts as 0 as soon as another of the
list has one, and all count alike when none has. A ``mirror`` entry is no backend: its weight is the per cent of requests
that are copied to it (and 0 there means all of them), so it is neither counted nor touched.

Contour says in ``status.conditions`` which generation it has taken, and whether it is valid. An invalid HTTPProxy loses
its configuration in Envoy, so nothing is written that its schema would not take.

Source: projectcontour/contour 31c4bb3, ``internal/dag/httpproxy_processor.go`` and ``apis/projectcontour/v1``.
"""

from collections.abc import Iterator

from canary_rollout.kube.port import HTTP_PROXIES, Object
from canary_rollout.traffic.foreign import Writer, status_written_at
from canary_rollout.traffic.object_router import Confirmation, Place
from canary_rollout.traffic.port import RouterContext, RouterError
from canary_rollout.traffic.splits import Split
from canary_rollout.traffic.weighted_lists import Lists, WeightedListRouter, find_split, none_names_both


class ContourRouter(WeightedListRouter):
    """Writes weights for Contour (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext) -> None:
        settings = context.spec.traffic.contour
        if settings is None:
            raise RouterError("spec.traffic.contour is missing")
        place = Place(HTTP_PROXIES, settings.http_proxy, "traffic.contour.httpProxy", ("spec", "routes"), "Contour")
        super().__init__(context, place)

    def _lists(self, obj: Object) -> Lists:
        services = self._context.spec.workload
        stable, canary = services.stable.service, services.canary.service
        splits: list[Split] = []
        problems: list[str] = []
        for index, where, backends in self._routes(obj):
            mirrors = [bool(backend.get("mirror")) for backend in backends]
            names = ["" if mirror else f"{one.get('name')}" for one, mirror in zip(backends, mirrors, strict=True)]
            found = find_split(names, stable, canary, where)
            if isinstance(found, str):
                problems += [found] if found else []
                continue
            path = f"/spec/routes/{index}/services"
            plain = tuple(f"{one.get('name')}" for one in backends)
            splits.append(Split(path, *found, weights=_weights(backends), names=plain, where=where))
        if not splits and not problems:
            problems.append(none_names_both(self.where, "route", stable, canary))
        return Lists(tuple(splits), tuple(problems))

    def _routes(self, obj: Object) -> Iterator[tuple[int, str, list[Object]]]:
        """Index, place for people, and Services of every route."""
        for index, route in enumerate((obj.get("spec") or {}).get("routes") or []):
            yield index, f"route {index} of {self.where}", route.get("services") or []

    def _confirmation(self, obj: Object, writer: Writer) -> Confirmation:
        del writer
        status = obj.get("status") or {}
        conditions = {one.get("type"): one for one in status.get("conditions") or []}
        valid = conditions.get("Valid")
        if valid is None or valid.get("observedGeneration") != obj["metadata"].get("generation"):
            return Confirmation(f"Contour has not taken the present generation of {self.where} yet")
        if valid.get("status") != "True" or status.get("currentStatus") != "valid":
            said = "; ".join(
                f"{error.get('reason')}: {error.get('message')}" for error in valid.get("errors") or []
            ) or status.get("description", "")
            return Confirmation(f"Contour refuses {self.where}: {said}")
        return Confirmation("", status_written_at(obj))


def _weights(backends: list[Object]) -> tuple[int, ...]:
    """What each Service weighs: none set counts all alike, some set counts the others as 0; a mirror gets no share."""
    some = any(backend.get("weight") for backend in backends if not backend.get("mirror"))
    return tuple(0 if backend.get("mirror") else int(backend.get("weight") or 0) if some else 1 for backend in backends)
