"""The nginx router: one ConfigMap that the agents follow, confirmed by their Leases.

The ConfigMap has no owner reference: it must outlive the CanaryRollout, or deleting one would leave nginx pods that
start without a configuration. What stays behind says weight 0 (or 100 % awaiting promotion), and the verdicts, so that
a CanaryRollout that is created again does not try a condemned revision anew.
"""

from typing import Final

from canary_rollout.kube.port import (
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
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.routers import NginxTraffic
from canary_rollout.model.units import format_instant
from canary_rollout.traffic import latch
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.ack import Ack, AckError, from_lease
from canary_rollout.traffic.nginx.confirm import Confirmation, confirm, serving_pods
from canary_rollout.traffic.nginx.document import (
    CONFIG_KEY,
    WEIGHTS_KEY,
    DocumentError,
    WeightsDocument,
    digest,
    parse,
    parse_edited,
)
from canary_rollout.traffic.nginx.render import ProxyConfig, config_digest, render_config, tenant_variable
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
from canary_rollout.traffic.services import cluster_address, find_service

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""Label of EndpointSlices that names their Service."""
WRITTEN_AT: Final = "canaryrollout.dev/written-at"
SOMEBODY: Final = "somebody"


class NginxRouter:
    """Writes weights for our own nginx (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext) -> None:
        traffic = context.spec.traffic
        if traffic.nginx is None:
            raise RouterError("spec.traffic.nginx is missing")
        self._context = context
        self._traffic = traffic
        self._nginx: NginxTraffic = traffic.nginx

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap that the agents follow."""
        return self._nginx.config_map or f"{self._context.name}-nginx"

    def capabilities(self) -> Capabilities:
        """0.01 % steps, tenants kept, cohorts, every proxy confirms."""
        return Capabilities(step=1, sticky=True, cohorts=True, proof=Proof.ACKED)

    def problems(self) -> list[str]:
        """Why this spec cannot be served: values nginx cannot take, Services that cannot be routed to."""
        context, found = self._context, []
        if len(context.name) > 63:
            found.append(
                f"the name {context.name!r} has more than 63 characters: the agents cannot carry it as a label"
            )
        try:
            find_service(context.reader, context.namespace, self._nginx.service)
        except RouterError as error:
            found.append(f"traffic.nginx.service: {error}")
        for stage in context.spec.stages:
            try:
                _checked_cohort(f"stage {stage.name}: cohort", stage.cohort)
            except RouterError as error:
                found.append(f"{error}")
        try:
            tenant_variable(self._traffic.sticky)
            render_config(self._proxy_config())
        except RouterError as error:
            found.append(f"{error}")
        return found

    def watched(self) -> tuple[Watched, ...]:
        """The ConfigMap, both Services and nginx's, its EndpointSlices, and the agents' Leases."""
        context = self._context
        names = (context.spec.workload.stable.service, context.spec.workload.canary.service, self._nginx.service)
        return (
            Watched(CONFIG_MAPS, context.namespace, self.config_map),
            *(Watched(SERVICES, context.namespace, name) for name in names),
            Watched(ENDPOINT_SLICES, context.namespace, labels=((SERVICE_NAME, self._nginx.service),)),
            Watched(LEASES, context.namespace, labels=((ROLLOUT_LABEL, context.name),)),
        )

    # Reading

    @property
    def _object(self) -> Object | None:
        return self._context.reader.get(CONFIG_MAPS, self._context.namespace, self.config_map)

    def observe(self) -> RouteView | None:
        """The route as the ConfigMap says it, and whether every nginx pod confirmed it."""
        written = self._object
        if written is None:
            return None
        if WEIGHTS_KEY not in (written.get("data") or {}) and latch.from_object(written) is None:
            return None  # made beforehand by somebody, for a volume perhaps
        try:
            document, foreign = self._read(written)
        except DocumentError as error:
            # Unreadable means that the agents keep what they had; its weight is unknown, so nothing is confirmed.
            unknown = Confirmation(confirmed=False, at=None, pending=f"{error}", mode="")
            return self._view(written, None, unknown, "", outdated=True)
        confirmation = self._confirmation(document)
        outdated = self._outdated(document)
        if foreign:
            follow = (
                "which the proxies follow, as it is 0" if document.weight == 0 else "the proxies keep what they had"
            )
            said = f"{WEIGHTS_KEY} was overwritten by {foreign}; {follow}"
            confirmation = Confirmation(confirmed=False, at=None, pending=said, mode=confirmation.mode)
        elif outdated:
            said = "the spec or a Service's address has changed; the ConfigMap is to be written again"
            confirmation = Confirmation(confirmed=False, at=None, pending=said, mode=confirmation.mode)
        return self._view(written, document, confirmation, foreign, outdated=outdated)

    @staticmethod
    def _view(
        written: Object, document: WeightsDocument | None, state: Confirmation, foreign: str, *, outdated: bool
    ) -> RouteView:
        return RouteView(
            weight=document.weight if document else 0,
            revision=document.revision if document else "",
            cohort=document.cohort if document else None,
            confirmed=state.confirmed,
            confirmed_at=state.at,
            pending=state.pending,
            latch=latch.from_object(written),
            contested_by=foreign if document else _other_writer(written),
            resource_version=written["metadata"].get("resourceVersion", ""),
            mode=state.mode,
            outdated=outdated,
        )

    @staticmethod
    def _read(written: Object) -> tuple[WeightsDocument, str]:
        """The document and who else wrote it (empty: nobody)."""
        data = written.get("data") or {}
        text, config = data.get(WEIGHTS_KEY, ""), data.get(CONFIG_KEY, "")
        try:
            document = parse(text)
        except DocumentError:
            return parse_edited(text), _other_writer(written)
        return document, "" if digest(config) == document.config else _other_writer(written)

    def _outdated(self, document: WeightsDocument) -> bool:
        settings = self._nginx
        if (document.listen, document.stale_after, document.mode) != (
            settings.listen,
            settings.stale_after,
            settings.mode,
        ):
            return True
        try:
            return config_digest(self._proxy_config()) != document.config
        except RouterError:
            return False  # nothing better can be written; problems() says why

    def _confirmation(self, document: WeightsDocument) -> Confirmation:
        context = self._context
        slices = context.reader.select(ENDPOINT_SLICES, context.namespace, {SERVICE_NAME: self._nginx.service})
        labels = {ROLLOUT_LABEL: context.name, MANAGED_BY: OPERATOR}
        acks: dict[str, Ack] = {}
        for lease in context.reader.select(LEASES, context.namespace, labels):
            try:
                ack = from_lease(lease)
            except AckError:
                continue  # a Lease that is no agent's proves nothing: its pod counts as silent
            if ack.config_map == self.config_map:
                acks[ack.pod] = ack
        return confirm(document, serving_pods(slices), acks, context.clock.now())

    # Writing

    def _proxy_config(self) -> ProxyConfig:
        context, services = self._context, self._context.spec.workload
        return ProxyConfig(
            namespace=context.namespace,
            rollout=context.name,
            stable_upstream=cluster_address(context.reader, context.namespace, services.stable.service),
            canary_upstream=cluster_address(context.reader, context.namespace, services.canary.service),
            sticky=self._traffic.sticky,
            headers=self._traffic.response_headers,
        )

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write the route; nothing when the cache already shows exactly this.

        A lowering is written even where ``nginx.conf`` cannot be rendered any more (a Service is gone): with the one
        that is there.
        """
        written = self._object
        before = self._readable(written)
        try:
            # A lowering to more than 0 carries a fence too: landed late, after a verdict, it would be a raise.
            lowering = fence is None or (before is not None and route.weight < before.weight)
            config = self._config_for(written, lowering=lowering)
            document = self._document(route, config, before)
        except RouterError as error:
            return Rejected(f"{error}")
        note = latch.to_annotation(route.latch) if route.latch is not None else None
        if written is not None and before is not None and document.same_route(before):
            notes = written["metadata"].get("annotations") or {}
            if notes.get(latch.LATCH) == note and (written.get("data") or {}).get(CONFIG_KEY) == config:
                return Written(written["metadata"].get("resourceVersion", ""), changed=False)
        answer = await self._context.api.apply(
            CONFIG_MAPS,
            self._context.namespace,
            self.config_map,
            self._body(document, config, note, fence),
        )
        return Written(answer["metadata"].get("resourceVersion", ""), changed=True)

    def _config_for(self, written: Object | None, *, lowering: bool) -> str:
        try:
            return render_config(self._proxy_config())
        except RouterError:
            kept = ((written or {}).get("data") or {}).get(CONFIG_KEY)
            if kept is None or not lowering:
                raise
            return f"{kept}"

    @staticmethod
    def _readable(written: Object | None) -> WeightsDocument | None:
        try:
            return parse(((written or {}).get("data") or {}).get(WEIGHTS_KEY, ""))
        except DocumentError:
            return None

    def _document(self, route: Route, config: str, before: WeightsDocument | None) -> WeightsDocument:
        return WeightsDocument(
            namespace=validate.dns_name("metadata.namespace", self._context.namespace),
            rollout=validate.dns_name("metadata.name", self._context.name),
            sequence=before.sequence + 1 if before is not None else 1,
            weight=validate.whole_number("weight", route.weight, 0, 10_000),
            revision=validate.revision("revision", route.revision),
            stable_revision=validate.revision("stable revision", route.stable_revision),
            cohort=_checked_cohort("cohort", route.cohort) if route.weight > 0 else None,
            listen=validate.whole_number("traffic.nginx.listen", self._nginx.listen, 1024, 65535),
            stale_after=self._nginx.stale_after,
            mode=self._nginx.mode,
            config=digest(config),
        )

    def _body(self, document: WeightsDocument, config: str, note: str | None, fence: str | None) -> Object:
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
        return {
            "apiVersion": CONFIG_MAPS.api_version,
            "kind": CONFIG_MAPS.kind,
            "metadata": metadata,
            "data": {CONFIG_KEY: config, WEIGHTS_KEY: document.dump()},
        }

    async def release(self) -> None:
        """Leave the ConfigMap: the nginx pods need it, and its verdicts must not be forgotten."""


def _checked_cohort(field: str, cohort: Cohort | None) -> Cohort | None:
    if cohort is None:
        return None
    if cohort.header is not None:
        validate.header_name(f"{field}.header", cohort.header)
    else:
        validate.cookie_name(f"{field}.cookie", cohort.cookie)
    return cohort.model_copy(update={"values": validate.cohort_values(f"{field}.values", cohort.values)})


def _other_writer(written: Object) -> str:
    """The field manager that owns ``weights.json`` and is not ours; "somebody" when the object does not say."""
    owners = [
        entry.get("manager", SOMEBODY)
        for entry in written["metadata"].get("managedFields") or []
        if f"f:{WEIGHTS_KEY}" in ((entry.get("fieldsV1") or {}).get("f:data") or {})
    ]
    return next((owner for owner in reversed(owners) if owner != FIELD_MANAGER), SOMEBODY)
