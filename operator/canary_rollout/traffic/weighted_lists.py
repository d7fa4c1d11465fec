"""Weights in lists of a user's own object, by JSON Patch with tests: what all routers share that write into one.

Nothing but weights is changed in such an object, and rules for people where a router may add them: lists are atomic, so
server-side apply of a weight alone is impossible (it would take over the whole list). A raise is guarded by the resourceVersion it was decided on, a lowering
by the backends' names alone (design invariant 10); when the lists moved under a lowering, it is made again from what the
API server has now. Who wrote the weights, when, and for which revision is read from the API server's own bookkeeping
(:mod:`traffic.foreign`); a verdict cannot be left there, it is in the CanaryRollout's status alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from canary_rollout.kube.port import ConflictError, NotFoundError, Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Capabilities, Proof, Route, RouteView
from canary_rollout.model.units import FULL
from canary_rollout.traffic.foreign import Writer, authorship, settled_at
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.object_router import UNKNOWN_COHORT, Confirmation, ObjectRouter, resource_version
from canary_rollout.traffic.port import Rejected, RouterError, Written
from canary_rollout.traffic.splits import Split, changes, lowers, share_of

_ATTEMPTS: Final = 3
"""Times a lowering is written anew when the user's lists moved under it."""


@dataclass(frozen=True, slots=True)
class Lists:
    """What an object says.

    Attributes:
        splits: the lists that name both versions.
        problems: why it, or some of it, cannot be served, one sentence each.
    """

    splits: tuple[Split, ...]
    problems: tuple[str, ...] = ()


class WeightedListRouter(ObjectRouter):
    """Writes weights in somebody's object (:class:`traffic.port.Router`); a subclass knows where they are in its kind."""

    settle: float | None = None
    """Seconds from a write until the data plane is taken to have it; ``None``: it reports."""

    # What a subclass says of its kind

    def _lists(self, obj: Object) -> Lists:
        """The lists with weights, and what is wrong with them."""
        raise NotImplementedError

    def _spec_problems(self) -> Iterator[str]:
        """What of the spec this data plane cannot do, beyond stickiness, cohorts and pins."""
        yield from ()

    def _confirmation(self, obj: Object, writer: Writer) -> Confirmation:
        """How far the data plane is; one that reports says more than that time has passed."""
        del obj
        if self.settle is None:
            raise NotImplementedError
        at = settled_at(writer, self.settle)
        left = at - self._context.clock.now()
        if left <= 0:
            return Confirmation("", at)
        return Confirmation(f"{self._place.app} reports nothing; taken to have it in {left:.0f} s", at, again_at=at)

    def _people(self, obj: Object) -> list[Object]:
        """The rules for people in the object that are ours, in their order."""
        del obj
        return []

    def _people_for(self, obj: Object, cohort: Cohort | None, *, full: bool) -> list[Object]:
        """The rules that :meth:`_people` finds once a cohort was written; ``full``: with the weight of 100 %.

        Raises:
            RouterError: what cannot be expressed, and why.
        """
        del obj, cohort, full
        return []

    def _changes(self, lists: Lists, weight: int, *, trace: bool) -> list[Object]:
        """JSON Patch operations that give the canary ``weight`` in every list.

        Args:
            lists: as they are.
            weight: basis points.
            trace: whether the patch must change something even where the shares are right.
        """
        return changes(lists.splits, weight, trace=trace)

    # The protocol

    def capabilities(self) -> Capabilities:
        """0.01 % steps; several canaries of one stable may share a list."""
        proof = Proof.ACCEPTED if self.settle is None else Proof.SETTLE
        return Capabilities(step=1, sticky=False, cohorts=False, proof=proof, variants=True)

    def problems(self) -> list[str]:
        """Why this spec cannot be served through this object."""
        found = [*self._sticky_problems(), *self._people_problems(), *self._spec_problems(), *self._service_problems()]
        obj = self._object()
        if obj is None:
            return [*found, f"{self.where} does not exist: create it, or correct {self._place.field}"]
        lists = self._lists(obj)
        return [*found, *lists.problems, *(text for split in lists.splits if (text := split.problem()))]

    def _sticky_problems(self) -> Iterator[str]:
        if self._context.spec.traffic.sticky is not None:
            yield (
                f"{self._place.app} decides each request by itself and cannot keep tenants on a version: remove "
                "traffic.sticky, or use the nginx or envoy router"
            )

    def _people_problems(self) -> Iterator[str]:
        """Cohorts and pins would need routes of their own, which are never added to somebody's object."""
        advice = "use the nginx, envoy or gatewayAPI router for it"
        if self._context.spec.traffic.pin is not None:
            yield f"traffic.pin needs routes of its own, and {self.where} is yours: remove it, or {advice}"
        if self._context.spec.traffic.request_headers.baggage:
            yield f"traffic.requestHeaders.baggage needs headers to be added, and {self.where} is yours: remove it, or {advice}"
        for stage in self._context.spec.stages:
            if stage.cohort is not None:
                yield (
                    f"stage {stage.name}: its cohort needs a route of its own, and {self.where} is yours: remove "
                    f"stages[].cohort (write a route for these people yourself), or {advice}"
                )

    # Reading

    def observe(self) -> RouteView | None:
        """The object as the cache has it; ``None`` when it does not exist."""
        obj = self._object()
        if obj is None:
            return None
        lists, writer = self._lists(obj), self._writer(obj)
        weight = share_of(lists.splits)
        revision, contested_by = authorship(writer, self._context, weight)
        uneven = not all(split.gives(weight) for split in lists.splits)
        cohort = self._cohort(obj, weight)
        confirmation = self._confirmation(obj, writer)
        pending = confirmation.pending
        if uneven:
            pending = f"the lists of {self.where} do not all say the same share; it is to be written again"
        return RouteView(
            weight=weight,
            revision=revision,
            cohort=cohort,
            confirmed=not pending,
            confirmed_at=None if pending else confirmation.at,
            pending=pending,
            latch=None,
            contested_by=contested_by,
            resource_version=resource_version(obj),
            mode=f"your {self._place.resource.kind}",
            outdated=uneven or cohort is UNKNOWN_COHORT,
            carries_latch=False,
            again_at=confirmation.again_at,
        )

    def _cohort(self, obj: Object, weight: int) -> Cohort | None:
        """The cohort that our rules for people say: one of this spec's, or one that equals none."""
        there = self._people(obj)
        if not there and (weight == 0 or self._context.spec.traffic.pin is None):
            return None
        for candidate in (None, *(cohort for _, cohort in self._stage_cohorts())):
            try:
                if self._people_for(obj, candidate, full=weight >= FULL) == there:
                    return candidate
            except RouterError:
                continue  # cannot be expressed, so it is not what is there
        return UNKNOWN_COHORT if there else None

    # Writing

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write the weights; nothing when they are there already, written by us for this revision.

        A lowering is tried again on what the API server has now when that moved meanwhile, as long as it still is one.
        """
        there = self._object()
        for attempt in range(_ATTEMPTS):
            if there is None:
                if route.weight == 0 and route.mirror == 0:
                    return Written("", changed=False)  # nobody gets the canary by an object that does not exist
                return Rejected(f"{self.where} does not exist: create it")
            try:
                operations, manager = self._operations(there, route, fence)
            except RouterError as error:
                return Rejected(f"{error}")
            if not operations:
                return Written(resource_version(there), changed=False)
            try:
                answer = await self._send(operations, manager)
            except NotFoundError:
                there = None
            except ConflictError as conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
                there, fence = await self._moved(conflict, route, fence)
            else:
                return Written(resource_version(answer), changed=True)
        return Rejected(f"{self.where} is gone: create it again")

    async def _moved(
        self, conflict: ConflictError, route: Route, fence: str | None
    ) -> tuple[Object | None, str | None]:
        """What is there now, and the fence for it; raises the conflict when that is no lowering of it any more.

        A lowering must not wait for a back-off because the controller's report, or another overwrite, came between.
        """
        there = await self._live()
        if fence is None or there is None:
            return there, fence
        if route.cohort is not None or not lowers(self._lists(there).splits, route.weight):
            raise conflict
        return there, resource_version(there)

    async def _live(self) -> Object | None:
        try:
            return await self._context.api.get(self._place.resource, self._context.namespace, self._place.name)
        except NotFoundError:
            return None

    async def _send(self, operations: list[Object], manager: str) -> Object:
        return await self._context.api.json_patch(
            self._place.resource, self._context.namespace, self._place.name, operations, manager=manager
        )

    def _operations(self, there: Object, route: Route, fence: str | None) -> tuple[list[Object], str]:
        """The JSON Patch and the field manager's name to send it under.

        Raises:
            RouterError: what cannot be written, and why.
        """
        lists, writer = self._lists(there), self._writer(there)
        share, weight = share_of(lists.splits), validate.whole_number("weight", route.weight, 0, FULL)
        additions = self._additions(there, lists, route)
        people = route.cohort is not None and route.cohort != self._cohort(there, share)
        if (weight > share or people or route.mirror > 0) and lists.problems:
            raise RouterError(lists.problems[0])
        manager = writer.manager(self._context.name, route.revision)
        trace = authorship(writer, self._context, share)[0] != route.revision
        operations = [*self._changes(lists, weight, trace=trace and not additions), *additions]
        if operations and fence is not None:
            operations.insert(0, {"op": "test", "path": "/metadata/resourceVersion", "value": fence})
        return operations, manager

    def _additions(self, there: Object, lists: Lists, route: Route) -> list[Object]:
        """JSON Patch operations for what is not weights; they follow those for weights. None by default.

        Raises:
            RouterError: it cannot be written, and why.
        """
        del there, lists
        if route.cohort is not None or route.mirror:
            what = "a cohort" if route.cohort is not None else "a mirror"
            raise RouterError(f"{what} needs more than weights, and {self.where} is yours: remove it from the stages")
        return []

    async def release(self) -> None:
        """The weights stay as they are, and rules for people went with the last of the weight: nothing else is ours."""


def removals(path: str, entries: list[Object], is_ours: Callable[[Object], bool]) -> list[Object]:
    """JSON Patch operations that take what is ours out of the list at ``path``, the last first, each guarded by its name."""
    found: list[Object] = []
    for index, entry in reversed(list(enumerate(entries))):
        if is_ours(entry):
            at = f"{path}/{index}"
            found += [{"op": "test", "path": f"{at}/name", "value": entry["name"]}, {"op": "remove", "path": at}]
    return found


def find_split(names: list[str], stable: str, canary: str, where: str) -> tuple[int, int] | str:
    """Places of both versions among a list's backends, or why it cannot be used; empty when it does not name both.

    Args:
        names: of each backend, as ``stable`` and ``canary`` are written; empty for whatever is neither.
        stable: of the stable version.
        canary: of the canary.
        where: the list, for people.
    """
    if stable not in names or canary not in names:
        return ""
    for name in (stable, canary):
        if names.count(name) > 1:
            return f"{where} names {name} twice, so weights cannot be told apart: name it once"
    return names.index(stable), names.index(canary)


def none_names_both(where: str, what: str, stable: str, canary: str) -> str:
    """The sentence for an object none of whose lists can be used."""
    return f"{where} has no {what} that names both {stable} and {canary}: add {canary} beside {stable} with weight 0"
