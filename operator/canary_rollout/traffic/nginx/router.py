"""The nginx router: ``nginx.conf`` and ``weights.json`` in one ConfigMap."""

from collections.abc import Mapping
from typing import Any

from canary_rollout.model.routers import NginxTraffic
from canary_rollout.traffic.nginx.base import AgentRouter
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
from canary_rollout.traffic.port import Route, RouterContext, RouterError


class NginxRouter(AgentRouter[WeightsDocument]):
    """Writes weights for our own nginx (:class:`traffic.port.Router`)."""

    kind = "nginx"
    key = WEIGHTS_KEY

    def __init__(self, context: RouterContext) -> None:
        nginx = context.spec.traffic.nginx
        super().__init__(context, nginx)
        assert nginx is not None  # noqa: S101 - or there would have been an error
        self._nginx: NginxTraffic = nginx

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap that the agents follow."""
        return self._nginx.config_map or f"{self._context.name}-nginx"

    def _check(self) -> None:
        tenant_variable(self._traffic.sticky)
        config_digest(self._proxy_config())  # what was rendered once is not rendered at every look

    def _proxy_config(self) -> ProxyConfig:
        context, services = self._context, self._context.spec.workload
        return ProxyConfig(
            namespace=context.namespace,
            rollout=context.name,
            stable_upstream=self._address(services.stable.service),
            canary_upstream=self._address(services.canary.service),
            sticky=self._traffic.sticky,
            headers=self._traffic.response_headers,
            told=self._traffic.request_headers,
            pin=self._traffic.pin,
            direct=self._nginx.direct_paths,
            trusted=self._nginx.trusted_proxies,
            mirror=any(stage.mirrors for stage in context.spec.stages),
        )

    def _told(
        self, route: Route, before: WeightsDocument | None, kept: Mapping[str, str] | None
    ) -> tuple[WeightsDocument, dict[str, str]]:
        try:
            config = render_config(self._proxy_config())
        except RouterError:
            if kept is None or CONFIG_KEY not in kept:
                raise
            config = kept[CONFIG_KEY]
        fields: dict[str, Any] = self._common(route, before)
        document = WeightsDocument(**fields, mode=self._nginx.mode, config=digest(config))
        return document, {CONFIG_KEY: config, WEIGHTS_KEY: document.dump()}

    def _read(self, data: Mapping[str, str]) -> tuple[WeightsDocument, bool]:
        text = data.get(WEIGHTS_KEY, "")
        try:
            document = parse(text)
        except DocumentError:
            return parse_edited(text), False
        return document, digest(data.get(CONFIG_KEY, "")) == document.config

    def _whole(self, data: Mapping[str, str]) -> bool:
        try:
            parse(data.get(WEIGHTS_KEY, ""))
        except DocumentError:
            return False
        return True

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
