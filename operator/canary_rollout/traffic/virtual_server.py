"""F5 NGINX Ingress Controller: splits of routes in a VirtualServer of the user's. Whole per cents, the sum always 100.

A VirtualServer that the controller finds invalid loses its configuration in nginx, which is an outage. So both weights of
a list change in one patch, what would not add up to 100 is refused before it is written, and nothing else is touched.
Requests are dealt out by ``split_clients $request_id``, each by itself, so tenants cannot be kept on a version.

The controller reports whether the VirtualServer is valid, but not of which generation, and not when nginx has reloaded.
So a weight counts when the state is ``Valid`` (or ``Warning``) and a settling time has passed since it was written.

A patch that changes nothing is not recorded by the API server, and here no share can be written in two ways, except 0:
there an absent weight says the same. In between, taking over a list that somebody else wrote last, with the share
already right, takes two writes: one per cent less, and back.

Source: nginx/kubernetes-ingress 0eb3072, ``internal/configs/virtualserver.go`` and
``pkg/apis/configuration/validation/virtualserver.go``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from canary_rollout.kube.port import VIRTUAL_SERVERS, Object
from canary_rollout.model.route import Capabilities, Proof
from canary_rollout.model.units import FULL, format_weight
from canary_rollout.traffic.foreign import Writer
from canary_rollout.traffic.object_router import Confirmation, Place
from canary_rollout.traffic.port import RouterContext, RouterError
from canary_rollout.traffic.splits import Split
from canary_rollout.traffic.weighted_lists import Lists, WeightedListRouter, find_split, none_names_both

STEP: Final = 100
"""Basis points of a per cent."""
_SERVED: Final = frozenset({"Valid", "Warning"})


@dataclass(frozen=True, slots=True)
class Splits(Split):
    """One list of splits; weights are basis points, as everywhere, though the object has whole per cents.

    Attributes:
        name_ats: of each entry, JSON pointer of the upstream's name inside it.
        absent: of each entry, whether it has no weight at all.
    """

    name_ats: tuple[str, ...] = ()
    absent: tuple[bool, ...] = ()


class VirtualServerRouter(WeightedListRouter):
    """Writes weights for the F5 NGINX Ingress Controller (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext) -> None:
        settings = context.spec.traffic.virtual_server
        if settings is None:
            raise RouterError("spec.traffic.virtualServer is missing")
        field = "traffic.virtualServer.virtualServer"
        place = Place(
            VIRTUAL_SERVERS, settings.virtual_server, field, ("spec", "routes"), "F5 NGINX Ingress Controller"
        )
        super().__init__(context, place)
        self._settings = settings
        self.settle = settings.settle

    def capabilities(self) -> Capabilities:
        """Whole per cents."""
        return Capabilities(step=STEP, sticky=False, cohorts=False, proof=Proof.SETTLE, variants=True)

    def _spec_problems(self) -> Iterator[str]:
        for stage in self._context.spec.stages:
            if stage.weight % STEP:
                yield f"stage {stage.name}: {refusal(stage.weight)}"

    # Reading

    def _lists(self, obj: Object) -> Lists:
        services = self._context.spec.workload
        stable, canary = services.stable.service, services.canary.service
        upstreams = {f"{one.get('name')}": f"{one.get('service')}" for one in _list(obj.get("spec"), "upstreams")}
        splits: list[Split] = []
        problems: list[str] = []
        for path, where, entries in self._places(obj):
            found = find_split([upstreams.get(_upstream(entry), "") for entry in entries], stable, canary, where)
            if isinstance(found, str):
                problems += [found] if found else []
                continue
            names, weights = tuple(_upstream(one) for one in entries), tuple(_weight(one) for one in entries)
            if sum(weights) != FULL:
                shown = " and ".join(f"{weight // STEP}" for weight in weights)
                problems.append(f"{where}: weights must add up to 100, found {shown}: mend them")
            splits.append(
                Splits(
                    path,
                    *found,
                    weights=weights,
                    names=names,
                    where=where,
                    name_ats=tuple(_name_of(one) for one in entries),
                    absent=tuple("weight" not in one for one in entries),
                )
            )
        if not splits and not problems:
            problems.append(none_names_both(self.where, "route with splits", stable, canary))
        return Lists(tuple(splits), tuple(problems))

    def _places(self, obj: Object) -> Iterator[tuple[str, str, list[Object]]]:
        """JSON pointer, place for people, and entries of every list of splits, those inside ``matches`` included."""
        for index, route in enumerate(_list(obj.get("spec"), "routes")):
            path = route.get("path")
            if self._settings.path not in {None, path}:
                continue
            where = f"route {path} of {self.where}"
            if entries := _list(route, "splits"):
                yield f"/spec/routes/{index}/splits", where, entries
            for number, match in enumerate(_list(route, "matches")):
                if entries := _list(match, "splits"):
                    yield f"/spec/routes/{index}/matches/{number}/splits", f"match {number} of {where}", entries

    def _confirmation(self, obj: Object, writer: Writer) -> Confirmation:
        status = obj.get("status") or {}
        if status.get("state") not in _SERVED:
            state = status.get("state") or "nothing"
            said = f": {status.get('message')}" if status.get("message") else ""
            return Confirmation(f"the controller says {state} of {self.where}{said}")
        return super()._confirmation(obj, writer)

    # Writing

    async def _send(self, operations: list[Object], manager: str) -> Object:
        """One patch; two where a list is written twice, the second only onto what the first has left."""
        second = next((at for at, one in enumerate(operations) if one in operations[:at]), len(operations))
        answer = await super()._send(operations[:second], manager)
        if second == len(operations):
            return answer
        version = {"op": "test", "path": "/metadata/resourceVersion", "value": answer["metadata"]["resourceVersion"]}
        return await super()._send([version, *operations[second:]], manager)

    def _changes(self, lists: Lists, weight: int, *, trace: bool) -> list[Object]:
        if weight % STEP:
            raise RouterError(refusal(weight))
        found: list[Object] = []
        splits = [split for split in lists.splits if isinstance(split, Splits)]
        for split in splits:
            if not split.gives(weight):
                found += _both(split, split.wanted(weight, trace=False) if weight else split.to_nothing())
        if found or not trace:
            return found
        return _trace(splits[0], weight) if splits else []


def refusal(weight: int) -> str:
    """Why a weight cannot be had here, and the nearest that can."""
    below, above = weight // STEP * STEP, min(FULL, -(-weight // STEP) * STEP)
    nearest = format_weight(above) if below == 0 else f"{format_weight(below)} or {format_weight(above)}"
    return (
        f"{format_weight(weight)} is no whole per cent, and the F5 NGINX Ingress Controller splits by whole per cents only: "
        f"choose {nearest}"
    )


def _both(split: Splits, weights: tuple[int, int]) -> list[Object]:
    """Operations that write both weights (basis points), guarded by the names."""
    found: list[Object] = []
    for index, value in zip((split.stable, split.canary), weights, strict=True):
        entry = f"{split.path}/{index}"
        found.append({"op": "test", "path": f"{entry}{split.name_ats[index]}", "value": split.names[index]})
        found.append({"op": "add", "path": f"{entry}{split.weight_at}", "value": value // STEP})
    return found


def _trace(split: Splits, weight: int) -> list[Object]:
    """Something that changes the list: an absent weight for 0 or the other way round, else one per cent less, and back."""
    for index in (split.canary, split.stable):
        if split.weights[index] == 0:
            entry = f"{split.path}/{index}"
            test = {"op": "test", "path": f"{entry}{split.name_ats[index]}", "value": split.names[index]}
            path = f"{entry}{split.weight_at}"
            return [
                test,
                {"op": "add", "path": path, "value": 0} if split.absent[index] else {"op": "remove", "path": path},
            ]
    stable = FULL - weight - split.others
    return [*_both(split, (stable + STEP, weight - STEP)), *_both(split, (stable, weight))]


def _list(obj: Any, field: str) -> list[Object]:
    found: list[Object] = (obj or {}).get(field) or []
    return found


def _upstream(entry: Object) -> str:
    """Name of the upstream that an entry of ``splits`` sends requests to; empty for a redirect or a fixed answer."""
    action = entry.get("action") or {}
    return f"{action.get('pass') or (action.get('proxy') or {}).get('upstream') or ''}"


def _name_of(entry: Object) -> str:
    return "/action/pass" if "pass" in (entry.get("action") or {}) else "/action/proxy/upstream"


def _weight(entry: Object) -> int:
    return int(entry.get("weight") or 0) * STEP
