"""Routers of our own proxies: one ConfigMap that the agents follow, confirmed by their Leases.

The ConfigMap has no owner reference: it must outlive the CanaryRollout, or deleting one would leave proxies that
start without a configuration. What stays behind says weight 0 (or 100 % awaiting promotion), and the verdicts, so that
a CanaryRollout that is created again does not try a condemned revision anew.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, Generic

from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    FIELD_MANAGER,
    LEASES,
    MANAGED_BY,
    OPERATOR,
    ROLLOUT_LABEL,
    SERVICES,
    Object,
)
from canary_rollout.model.routers import AgentTraffic
from canary_rollout.model.units import format_instant
from canary_rollout.traffic import latch
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.ack import Ack, AckError, from_lease
from canary_rollout.traffic.nginx.confirm import Confirmation, confirm, serving_pods
from canary_rollout.traffic.nginx.document import DocumentError, DocumentType
from canary_rollout.traffic.port import (
    Capabilities,
    Proof,
    Rejected,
    Route,
    RouterContext,
    RouterError,
    RouteView,
    Watched,
    Written,
)
from canary_rollout.traffic.services import cluster_address, find_service, outside_address

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""Label of EndpointSlices that names their Service."""
WRITTEN_AT: Final = "canaryrollout.dev/written-at"
SOMEBODY: Final = "somebody"


class AgentRouter(ABC, Generic[DocumentType]):
    """Writes weights for proxies with an agent (:class:`traffic.port.Router`); each kind of proxy says what it is told."""

    kind: str
    """As in the resource: ``nginx``, ``envoy``."""
    key: str
    """Key of the ConfigMap that holds the document."""

    def __init__(self, context: RouterContext, settings: AgentTraffic | None) -> None:
        if settings is None:
            raise RouterError(f"spec.traffic.{self.kind} is missing")
        self._context = context
        self._traffic = context.spec.traffic
        self._settings = settings

    # What a kind of proxy says

    @property
    @abstractmethod
    def config_map(self) -> str:
        """Name of the ConfigMap that the agents follow."""

    @abstractmethod
    def _check(self) -> None:
        """Raise RouterError for a spec that this proxy cannot be told."""

    @abstractmethod
    def _told(
        self, route: Route, before: DocumentType | None, kept: Mapping[str, str] | None
    ) -> tuple[DocumentType, dict[str, str]]:
        """The document, and the ConfigMap's data.

        Args:
            route: what should be served.
            before: the document that is there, if readable.
            kept: data to fall back to where new ones cannot be made (a lowering); ``None``: raise.
        """

    @abstractmethod
    def _read(self, data: Mapping[str, str]) -> tuple[DocumentType, bool]:
        """The document, and whether everything is as the operator wrote it."""

    @abstractmethod
    def _outdated(self, document: DocumentType) -> bool:
        """Whether the spec or an address asks for another document."""

    # The protocol

    def capabilities(self) -> Capabilities:
        """0.01 % steps, tenants kept, cohorts, copies, every proxy confirms."""
        return Capabilities(step=1, sticky=True, cohorts=True, proof=Proof.ACKED, mirror=True)

    def problems(self) -> list[str]:
        """Why this spec cannot be served: values the proxy cannot take, Services that cannot be routed to."""
        context, found = self._context, []
        if len(context.name) > 63:
            found.append(
                f"the name {context.name!r} has more than 63 characters: the agents cannot carry it as a label"
            )
        if self._settings.service is not None:
            try:
                find_service(context.reader, context.namespace, self._settings.service)
            except RouterError as error:
                found.append(f"traffic.{self.kind}.service: {error}")
        for stage in context.spec.stages:
            try:
                if validate.cohort(f"stage {stage.name}: cohort", stage.cohort) != stage.cohort:
                    found.append(
                        f"stage {stage.name}: cohort: values that differ only in case are one: keep one of them"
                    )
            except RouterError as error:
                found.append(f"{error}")
        if taken := self._taken():
            found.append(taken)
        try:
            self._check()
        except RouterError as error:
            found.append(f"{error}")
        return found

    def watched(self) -> tuple[Watched, ...]:
        """The ConfigMap, both Services and the proxies', its EndpointSlices, and the agents' Leases."""
        context, proxies = self._context, self._settings.service
        names = (context.spec.workload.stable.service, context.spec.workload.canary.service)
        slices = Watched(ENDPOINT_SLICES, context.namespace, labels=((SERVICE_NAME, proxies or ""),))
        return (
            Watched(CONFIG_MAPS, context.namespace, self.config_map),
            *(Watched(SERVICES, context.namespace, name) for name in (*names, *([proxies] if proxies else []))),
            *([slices] if proxies else []),
            Watched(LEASES, context.namespace, labels=((ROLLOUT_LABEL, context.name),)),
        )

    # Reading

    @property
    def _object(self) -> Object | None:
        return self._context.reader.get(CONFIG_MAPS, self._context.namespace, self.config_map)

    def _taken(self) -> str:
        """Why the ConfigMap is not ours to read or write; empty when it is, or when a rollout that is gone or moved has left it."""
        labels = ((self._object or {}).get("metadata") or {}).get("labels") or {}
        owner, context = labels.get(ROLLOUT_LABEL), self._context
        if owner in {None, context.name} or labels.get(MANAGED_BY) != OPERATOR:
            return ""
        there = context.reader.get(CANARY_ROLLOUTS, context.namespace, f"{owner}")
        if there is None or not self._named_by(there):
            return ""
        return (
            f"ConfigMap {self.config_map} belongs to CanaryRollout {owner}, and its proxies follow one rollout: name another "
            f"in traffic.{self.kind}.configMap"
        )

    def _named_by(self, rollout: Object) -> bool:
        """Whether a CanaryRollout has our ConfigMap still: by its spec, or as the place that it is about to leave."""
        places = (rollout.get("spec"), (rollout.get("status") or {}).get("place"))
        told = [place.get("traffic") for place in places if isinstance(place, dict)]
        return any(
            isinstance(settings, dict)
            and (settings.get("configMap") or f"{rollout['metadata']['name']}-{kind}") == self.config_map
            for traffic in told
            if isinstance(traffic, dict)
            for kind, settings in traffic.items()
        )

    def observe(self) -> RouteView | None:
        """The route as the ConfigMap says it, and whether every proxy confirmed it; ``None``: another rollout's says nothing."""
        written = self._object
        if written is None or self._taken():
            return None
        data = written.get("data") or {}
        if self.key not in data and latch.from_object(written) is None:
            return None  # made beforehand by somebody, for a volume perhaps
        try:
            document, ours = self._read(data)
        except DocumentError as error:
            # Unreadable means that the agents keep what they had; its weight is unknown, so nothing is confirmed.
            unknown = Confirmation(confirmed=False, at=None, pending=f"{error}", mode="")
            return self._view(written, None, unknown, self._other_writer(written), outdated=True)
        foreign = "" if ours else self._other_writer(written)
        confirmation = self._confirmation(document)
        outdated = self._outdated(document)
        if foreign:
            follow = (
                "which the proxies follow, as it is 0" if document.weight == 0 else "the proxies keep what they had"
            )
            said = f"{self.key} was overwritten by {foreign}; {follow}"
            confirmation = Confirmation(confirmed=False, at=None, pending=said, mode=confirmation.mode)
        elif outdated:
            said = "the spec or a Service's address has changed; the ConfigMap is to be written again"
            confirmation = Confirmation(confirmed=False, at=None, pending=said, mode=confirmation.mode)
        return self._view(written, document, confirmation, foreign, outdated=outdated)

    @staticmethod
    def _view(
        written: Object, document: DocumentType | None, state: Confirmation, foreign: str, *, outdated: bool
    ) -> RouteView:
        return RouteView(
            weight=document.weight if document else 0,
            revision=document.revision if document else "",
            cohort=document.cohort if document else None,
            confirmed=state.confirmed,
            confirmed_at=state.at,
            pending=state.pending,
            latch=latch.from_object(written),
            contested_by=foreign,
            resource_version=written["metadata"].get("resourceVersion", ""),
            mode=state.mode,
            outdated=outdated,
            mirror=document.mirror if document else 0,
        )

    def _confirmation(self, document: DocumentType) -> Confirmation:
        context, service = self._context, self._settings.service
        expected = set(self._settings.proxies)
        if service is not None:
            expected |= serving_pods(context.reader.select(ENDPOINT_SLICES, context.namespace, {SERVICE_NAME: service}))
        labels = {ROLLOUT_LABEL: context.name, MANAGED_BY: OPERATOR}
        acks: dict[str, Ack] = {}
        for lease in context.reader.select(LEASES, context.namespace, labels):
            try:
                ack = from_lease(lease)
            except AckError:
                continue  # a Lease that is no agent's proves nothing: its proxy counts as silent
            if ack.config_map == self.config_map:
                acks[ack.pod] = ack
        return confirm(document, expected, acks, context.clock.now(), self.kind)

    # Writing

    def _address(self, service: str) -> tuple[str, int]:
        find = outside_address if self._settings.via == "loadBalancer" else cluster_address
        return find(self._context.reader, self._context.namespace, service)

    def _common(self, route: Route, before: DocumentType | None) -> dict[str, object]:
        """Checked fields of a document of any kind."""
        field = f"traffic.{self.kind}"
        mirror = validate.whole_number("mirror", route.mirror, 0, 10_000)
        return {
            "namespace": validate.dns_name("metadata.namespace", self._context.namespace),
            "rollout": validate.dns_name("metadata.name", self._context.name),
            "sequence": before.sequence + 1 if before is not None else 1,
            "weight": validate.whole_number("weight", route.weight, 0, 10_000),
            "revision": validate.revision("revision", route.revision),
            "stable_revision": validate.revision("stable revision", route.stable_revision),
            "cohort": validate.cohort("cohort", route.cohort) if route.weight > 0 else None,
            "mirror": mirror if route.weight == 0 else 0,
            "listen": validate.whole_number(f"{field}.listen", self._settings.listen, 1024, 65535),
            "stale_after": self._settings.stale_after,
        }

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write the route; nothing when the cache already shows exactly this.

        A lowering is written even where a new configuration cannot be made any more (a Service is gone): with the one
        that is there.
        """
        if taken := self._taken():
            return Rejected(taken)
        written = self._object
        present = (written or {}).get("data") or {}
        before = self._readable(present)
        try:
            # A lowering to more than 0 carries a fence too: landed late, after a verdict, it would be a raise.
            lowering = fence is None or (before is not None and route.weight < before.weight)
            document, data = self._told(route, before, present if lowering else None)
        except RouterError as error:
            return Rejected(f"{error}")
        note = latch.to_annotation(route.latch) if route.latch is not None else None
        if written is not None and before is not None and document.same_route(before):
            notes = written["metadata"].get("annotations") or {}
            others = {key: text for key, text in data.items() if key != self.key}
            if notes.get(latch.LATCH) == note and others.items() <= present.items():
                return Written(written["metadata"].get("resourceVersion", ""), changed=False)
        answer = await self._context.api.apply(
            CONFIG_MAPS, self._context.namespace, self.config_map, self._body(data, note, fence)
        )
        return Written(answer["metadata"].get("resourceVersion", ""), changed=True)

    def _readable(self, data: Mapping[str, str]) -> DocumentType | None:
        try:
            document, _ = self._read(data)
        except DocumentError:
            return None
        return document if self._whole(data) else None

    @abstractmethod
    def _whole(self, data: Mapping[str, str]) -> bool:
        """Whether the document is as the operator wrote it."""

    def _body(self, data: dict[str, str], note: str | None, fence: str | None) -> Object:
        annotations = {WRITTEN_AT: format_instant(self._context.clock.now())}
        if note is not None:
            annotations[latch.LATCH] = note
        metadata: Object = {
            "name": self.config_map,
            "namespace": self._context.namespace,
            "labels": {MANAGED_BY: OPERATOR, ROLLOUT_LABEL: self._context.name},
            "annotations": annotations,
        }
        if fence is not None:
            metadata["resourceVersion"] = fence
        return {"apiVersion": CONFIG_MAPS.api_version, "kind": CONFIG_MAPS.kind, "metadata": metadata, "data": data}

    async def release(self) -> None:
        """Leave the ConfigMap: the proxies need it, and its verdicts must not be forgotten."""

    def _other_writer(self, written: Object) -> str:
        """The field manager that owns the document and is not ours; "somebody" when the object does not say."""
        owners = [
            entry.get("manager", SOMEBODY)
            for entry in written["metadata"].get("managedFields") or []
            if f"f:{self.key}" in ((entry.get("fieldsV1") or {}).get("f:data") or {})
        ]
        return next((owner for owner in reversed(owners) if owner != FIELD_MANAGER), SOMEBODY)
