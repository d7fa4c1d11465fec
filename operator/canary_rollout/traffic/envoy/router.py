"""The Envoy router: ``envoy.json`` in a ConfigMap, from which the agents make Envoy's files."""

from collections.abc import Mapping
from typing import Any

from canary_rollout.model.routers import EnvoyTraffic
from canary_rollout.traffic.envoy.document import ENVOY_KEY, EnvoyDocument, Upstream
from canary_rollout.traffic.envoy.routes import Routes
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.base import AgentRouter
from canary_rollout.traffic.nginx.document import DocumentError, parse_as, parse_edited_as
from canary_rollout.traffic.port import Route, RouterContext, RouterError


class EnvoyRouter(AgentRouter[EnvoyDocument]):
    """Writes weights for a plain Envoy with the agent beside it (:class:`traffic.port.Router`)."""

    kind = "envoy"
    key = ENVOY_KEY

    def __init__(self, context: RouterContext) -> None:
        envoy = context.spec.traffic.envoy
        super().__init__(context, envoy)
        assert envoy is not None  # noqa: S101 - or there would have been an error
        self._envoy: EnvoyTraffic = envoy

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap that the agents follow."""
        return self._envoy.config_map or f"{self._context.name}-envoy"

    def _check(self) -> None:
        document = self._document(Route(1, "canary", "stable"), None, None)
        Routes(document).configuration()

    def _upstream(self, field: str, service: str) -> Upstream:
        address, port = self._address(service)
        validate.address(field, address)
        return Upstream(address=address, port=validate.whole_number(f"{field} port", port, 1, 65535))

    def _static(self, kept: EnvoyDocument | None) -> dict[str, Any]:
        """What depends on the spec and two Services; the addresses of ``kept`` where a Service is gone."""
        services, traffic = self._context.spec.workload, self._traffic
        try:
            stable = self._upstream("stable Service", services.stable.service)
            canary = self._upstream("canary Service", services.canary.service)
        except RouterError:
            if kept is None:
                raise
            stable, canary = kept.stable, kept.canary
        return {
            "stable": stable,
            "canary": canary,
            "sticky": traffic.sticky,
            "pin": validate.pin("traffic.pin", traffic.pin),
            "request_headers": traffic.request_headers,
            "response_headers": traffic.response_headers,
            "trusted_proxies": tuple(
                validate.network("traffic.envoy.trustedProxies", one) for one in self._envoy.trusted_proxies
            ),
        }

    def _document(self, route: Route, before: EnvoyDocument | None, kept: EnvoyDocument | None) -> EnvoyDocument:
        return EnvoyDocument(**self._common(route, before), **self._static(kept))  # type: ignore[arg-type]  # checked fields by name

    def _told(
        self, route: Route, before: EnvoyDocument | None, kept: Mapping[str, str] | None
    ) -> tuple[EnvoyDocument, dict[str, str]]:
        document = self._document(route, before, before if kept is not None else None)
        Routes(document).configuration()  # nothing is written that the agents would refuse
        return document, {ENVOY_KEY: document.dump()}

    def _read(self, data: Mapping[str, str]) -> tuple[EnvoyDocument, bool]:
        text = data.get(ENVOY_KEY, "")
        try:
            return parse_as(EnvoyDocument, text, ENVOY_KEY), True
        except DocumentError:
            return parse_edited_as(EnvoyDocument, text, ENVOY_KEY), False

    def _whole(self, data: Mapping[str, str]) -> bool:
        try:
            parse_as(EnvoyDocument, data.get(ENVOY_KEY, ""), ENVOY_KEY)
        except DocumentError:
            return False
        return True

    def _outdated(self, document: EnvoyDocument) -> bool:
        settings = self._envoy
        if (document.listen, document.stale_after) != (settings.listen, settings.stale_after):
            return True
        try:
            static = self._static(None)
        except RouterError:
            return False  # nothing better can be written; problems() says why
        return any(getattr(document, field) != value for field, value in static.items())
