"""The route configuration of one document: a list of matches in the order of ``traffic/choice.py``.

Everything is data (dicts that become JSON); values were checked by the model and are checked again here.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.routing import Sticky
from canary_rollout.model.units import FULL
from canary_rollout.traffic.envoy.document import EnvoyDocument
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.hashing import salt_of

ROUTES: Final = "canary"
"""Name of the route configuration."""
CLIENT_HEADER: Final = "x-canary-client-address"
"""Set by Envoy to the client's address before it routes, and removed before the app sees it: what clients send is lost."""
EVERYBODY: Final = "everyone"
CHOSEN: Final = "chosen"
REGIONAL: Final = "region"
ARMS: Final = (EVERYBODY, CHOSEN, REGIONAL)
"""Groups whose requests are counted apart: one set of clusters each."""

Json = dict[str, Any]


def cluster(version: str, arm: str, *, leased: bool = False) -> str:
    """Name of the cluster that serves a version to an arm; ``leased``: stable takes over when the lease ends."""
    return f"{'leased' if leased else version}-{arm}"


def _header(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Json:
    return {"header": {"key": name.lower(), "value": value}, "append_action": action, "keep_empty_value": True}


def _exact(name: str, value: str) -> Json:
    return {"name": name.lower(), "string_match": {"exact": value, "ignore_case": True}}


def _regex(name: str, expression: str) -> Json:
    return {"name": name.lower(), "string_match": {"safe_regex": {"regex": expression}}}


def in_cookie(name: str, expression: str) -> str:
    """A regular expression for a whole Cookie header in which cookie ``name`` has a value like ``expression``."""
    return rf"(?:.*;\s*)?(?i:{re.escape(name)})=(?:{expression})(?:\s*;.*)?"


def glob(pattern: str) -> str:
    """A regular expression (RE2, whose time is linear) for a glob."""
    return ".*".join(re.escape(piece) for piece in pattern.split("*"))


class Routes:
    """Makes the routes of one document."""

    def __init__(self, document: EnvoyDocument) -> None:
        self._document = document
        self._full = document.weight >= FULL
        self._cohort = validate.cohort("cohort", document.cohort)
        self._pin = validate.pin("pin", document.pin)
        self._tenant = _tenant_name(document.sticky)
        self._salt = salt_of(
            validate.dns_name("metadata.namespace", document.namespace),
            validate.dns_name("metadata.name", document.rollout),
            validate.revision("revision", document.revision),
        )

    def configuration(self) -> Json:
        """The RouteConfiguration.

        Raises:
            UnsafeValueError: a value that must not reach Envoy.
        """
        routes = list(self._all())
        return {
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": ROUTES,
            "request_headers_to_remove": [CLIENT_HEADER],
            # Named by the document: of two route configurations with one content Envoy keeps the first, and its version.
            "virtual_hosts": [{"name": self._document.identity, "domains": ["*"], "routes": routes}],
        }

    def _all(self) -> Iterator[Json]:
        document, sticky, pin = self._document, self._document.sticky, self._pin
        if document.weight == 0:
            yield self._direct([], "stable", EVERYBODY, validate.EVERYONE)
            return
        if pin is not None:
            yield self._direct([_exact(pin.header, pin.stable)], "stable", CHOSEN, validate.PINNED)
        if sticky is not None and sticky.deny:
            denied = validate.tenants("sticky.deny", sticky.deny)
            yield self._direct([self._tenant_is(denied)], "canary" if self._full else "stable", CHOSEN, validate.DENIED)
        if pin is not None:
            yield self._direct([_exact(pin.header, pin.canary)], "canary", CHOSEN, validate.PINNED)
        if sticky is not None and sticky.allow:
            allowed = validate.tenants("sticky.allow", sticky.allow)
            yield self._direct([self._tenant_is(allowed)], "canary", CHOSEN, validate.ALLOWED)
        if self._cohort is not None:
            yield from self._members(self._cohort)
            yield from self._regions(self._cohort)
        yield from self._by_weight([], document.weight, EVERYBODY, validate.EVERYONE)

    def _tenant_is(self, names: tuple[str, ...]) -> Json:
        expression = "|".join(re.escape(name) for name in names)
        kind, name = self._tenant
        return _regex("cookie", in_cookie(name, expression)) if kind == "cookie" else _regex(name, f"(?:{expression})")

    def _members(self, cohort: Cohort) -> Iterator[Json]:
        looks = [
            *((re.escape(value), value) for value in cohort.values),
            *((f"{re.escape(prefix)}.*", prefix) for prefix in cohort.prefixes),
            *([(glob(cohort.pattern), validate.PATTERN)] if cohort.pattern is not None else []),
        ]
        for expression, label in looks:
            if cohort.header is not None:
                match = _regex(cohort.header, f"(?i:{expression})")
            else:
                match = _regex("cookie", in_cookie(cohort.cookie or "", f"(?i:{expression.replace('.*', '[^;]*')})"))
            yield self._direct([match], "canary", CHOSEN, label)

    def _regions(self, cohort: Cohort) -> Iterator[Json]:
        if cohort.regions is None:
            return
        for region in cohort.regions.weights:
            weight = FULL if self._full else region.weight
            label = f"{validate.REGION}{region.value}"
            yield from self._by_weight([_exact(cohort.regions.header, region.value)], weight, REGIONAL, label)

    # One route

    def _by_weight(self, match: list[Json], weight: int, arm: str, label: str) -> Iterator[Json]:
        if weight in {0, FULL}:
            yield self._direct(match, "canary" if weight else "stable", arm, label)
            return
        sticky = self._document.sticky
        kind, name = self._tenant
        if kind == "header":
            present = _regex(name, ".+")
            yield self._split([*match, present], weight, arm, label, self._hash(name, "(.+)", "t:"))
        elif kind == "cookie":
            present = _regex("cookie", in_cookie(name, "[^;]+"))
            found = rf"(?:.*?;\s*)?(?i:{re.escape(name)})=([^;]+).*"
            yield self._split([*match, present], weight, arm, label, self._hash("cookie", found, "t:"))
        if sticky is not None and (sticky.client_ip or sticky.fallback == "clientIP"):
            yield self._split(match, weight, arm, label, self._by_address())
        else:
            yield self._split(match, weight, arm, label, None)

    def _hash(self, header: str, expression: str, prefix: str) -> Json:
        rewrite = {"pattern": {"regex": f"^{expression}$"}, "substitution": rf"{self._salt}|{prefix}\1"}
        return {"header": {"header_name": header.lower(), "regex_rewrite": rewrite}}

    def _by_address(self) -> Json:
        if self._document.trusted_proxies:
            # The header is set before X-Forwarded-For is looked at; this is the address found there, without a salt.
            return {"connection_properties": {"source_ip": True}}
        return self._hash(CLIENT_HEADER, "(.+)", "")

    def _split(self, match: list[Json], weight: int, arm: str, label: str, kept: Json | None) -> Json:
        shares = (("canary", weight), ("stable", FULL - weight))
        clusters: Json = {
            "clusters": [
                {
                    "name": self._cluster(version, arm),
                    "weight": share,
                    "request_headers_to_add": self._told(version, label),
                    "response_headers_to_add": self._answered(version, label),
                }
                for version, share in shares
            ]
        }
        if kept is not None:
            clusters["use_hash_policy"] = True
        action = {**self._action(), "weighted_clusters": clusters, **({"hash_policy": [kept]} if kept else {})}
        return {"match": self._match(match), "route": action}

    def _direct(self, match: list[Json], version: str, arm: str, label: str) -> Json:
        action = {**self._action(), "cluster": self._cluster(version, arm)}
        if self._document.mirror:
            share = {"numerator": self._document.mirror, "denominator": "TEN_THOUSAND"}
            copies = {"cluster": "checked-chosen", "disable_shadow_host_suffix_append": True}
            action["request_mirror_policies"] = [{**copies, "runtime_fraction": {"default_value": share}}]
        return {
            "match": self._match(match),
            "route": action,
            "request_headers_to_add": self._told(version, label),
            "response_headers_to_add": self._answered(version, label),
        }

    def _cluster(self, version: str, arm: str) -> str:
        return cluster(version, arm, leased=version == "canary" and not self._full)

    @staticmethod
    def _match(headers: list[Json]) -> Json:
        return {"prefix": "/", **({"headers": headers} if headers else {})}

    @staticmethod
    def _action() -> Json:
        # Repeated is only what had not been sent when a kept connection closed, and inside the version.
        retry = {"retry_on": "reset-before-request", "num_retries": 1}
        return {"timeout": "0s", "idle_timeout": "240s", "retry_policy": retry}

    def _revision(self, version: str) -> str:
        document = self._document
        return validate.revision("revision", document.revision if version == "canary" else document.stable_revision)

    def _told(self, version: str, label: str) -> list[Json]:
        told = self._document.request_headers
        found = _named("requestHeaders", ((told.cohort, label), (told.version, self._revision(version))))
        if told.baggage:
            value = f"canary.cohort={label},canary.version={self._revision(version)}"
            found.append(_header("baggage", value, "APPEND_IF_EXISTS_OR_ADD"))
        return found

    def _answered(self, version: str, label: str) -> list[Json]:
        told = self._document.response_headers
        return _named("responseHeaders", ((told.cohort, label), (told.version, self._revision(version))))


def _tenant_name(sticky: Sticky | None) -> tuple[str, str]:
    """``(header or cookie, its name)`` of the tenant; both empty without one."""
    if sticky is None or sticky.client_ip:
        return "", ""
    if sticky.header is not None:
        return "header", validate.header_name("traffic.sticky.header", sticky.header)
    return "cookie", validate.header_name("traffic.sticky.cookie", sticky.cookie)


def _named(where: str, pairs: tuple[tuple[str, str], ...]) -> list[Json]:
    return [_header(validate.own_header_name(where, name), value) for name, value in pairs if name != ""]
