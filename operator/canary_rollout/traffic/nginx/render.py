"""``nginx.conf`` from validated values. What it says depends on the spec and two Services, never on the weight."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from canary_rollout.model.routers import DirectPaths
from canary_rollout.model.routing import Pin, RequestHeaders, ResponseHeaders, Sticky
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.document import digest
from canary_rollout.traffic.port import RouterError

_MIRRORED: Final = {
    "$canary_cohort": "mirror",
    "$canary_version": "$canary_order",
    "$canary_baggage": "$canary_mirror_baggage",
}
"""What the app is told with a copied request: who is meant to answer it, not who answered the client."""


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Everything that decides the text of ``nginx.conf``.

    Attributes:
        namespace: of the CanaryRollout.
        rollout: its name.
        stable_upstream: ``(address, port)`` of stable's Service.
        canary_upstream: ``(address, port)`` of the canary's Service.
        sticky: how tenants are told apart; ``None``: each request anew.
        headers: names of the headers that tell the client version and cohort.
        told: names of the headers that tell the app the same.
        pin: header by which a client chooses; ``None``: nobody can.
        direct: paths that lead to one version; ``None``: there are none.
        trusted: addresses whose X-Forwarded-For is believed.
        mirror: whether any stage copies requests.
    """

    namespace: str
    rollout: str
    stable_upstream: tuple[str, int]
    canary_upstream: tuple[str, int]
    sticky: Sticky | None
    headers: ResponseHeaders
    told: RequestHeaders = field(default_factory=RequestHeaders)
    pin: Pin | None = None
    direct: DirectPaths | None = None
    trusted: tuple[str, ...] = ()
    mirror: bool = False


@cache
def _template(name: str) -> Template:
    # No autoescape: this is no HTML, and nginx has no escaping that would do; values are validated instead.
    environment = Environment(
        loader=PackageLoader("canary_rollout.traffic.nginx"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _upstream(name: str, upstream: tuple[str, int]) -> str:
    address, port = upstream
    return f"{validate.address(name, address)}:{validate.whole_number(f'{name} port', port, 1, 65535)}"


def header_variable(where: str, name: object) -> str:
    """The nginx variable that holds a request header."""
    return "$http_" + validate.header_name(where, name).lower().replace("-", "_")


def cookie_variable(where: str, name: object) -> str:
    """The nginx variable that holds a cookie."""
    return "$cookie_" + validate.cookie_name(where, name)


def tenant_variable(sticky: Sticky | None) -> str:
    """The nginx variable that holds the tenant; empty without one (then the fallback decides every request)."""
    if sticky is None or sticky.client_ip:
        return ""
    if sticky.header is not None:
        return header_variable("traffic.sticky.header", sticky.header)
    return cookie_variable("traffic.sticky.cookie", sticky.cookie)


def by_address(sticky: Sticky | None) -> bool:
    """Whether the client's address decides where there is no tenant."""
    return sticky is not None and bool(sticky.client_ip or sticky.fallback == "clientIP")


def listed(sticky: Sticky | None) -> dict[str, str]:
    """Allowed and denied tenants: by name ignoring case (as nginx's ``map`` looks them up) their lists as written.

    ``d=`` or ``a=`` before each: two tenants that differ only in case are two.
    """
    found: dict[str, list[str]] = {}
    denied = validate.tenants("traffic.sticky.deny", sticky.deny or ()) if sticky is not None else ()
    allowed = validate.tenants("traffic.sticky.allow", sticky.allow or ()) if sticky is not None else ()
    for mark, names in (("d", denied), ("a", [name for name in allowed if name not in denied])):
        for name in names:
            found.setdefault(name.lower(), []).append(f"{mark}={name}")
    return {name: ",".join(lists) for name, lists in found.items()}


def _told(where: str, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    pairs = [
        (validate.own_header_name(f"{where}.{what}", name), f"$canary_{what}") for what, name in headers if name != ""
    ]
    if len({name.lower() for name, _ in pairs}) != len(pairs):
        raise RouterError(f"{where} names {pairs[0][0]!r} twice: give cohort and version one each")
    return pairs


def _upstream_headers(told: RequestHeaders) -> list[tuple[str, str]]:
    pairs = _told("traffic.requestHeaders", (("cohort", told.cohort), ("version", told.version)))
    return [*pairs, ("baggage", "$canary_baggage")] if told.baggage else pairs


def _direct(direct: DirectPaths | None) -> list[tuple[str, str]]:
    if direct is None:
        return []
    paths = [
        (validate.path(f"traffic.nginx.directPaths.{version}", path), version)
        for version, path in (("stable", direct.stable), ("canary", direct.canary))
    ]
    if paths[0][0] == paths[1][0]:
        raise RouterError(f"traffic.nginx.directPaths: {paths[0][0]} cannot lead to both versions")
    return paths


def render_config(config: ProxyConfig) -> str:
    """The text of ``nginx.conf``.

    Raises:
        UnsafeValueError: a value that must not reach nginx.
        RouterError: two headers or paths have one name.
    """
    told = _upstream_headers(config.told)
    pin, direct = validate.pin("traffic.pin", config.pin), config.direct
    sources = direct.allow_from if direct is not None else ()
    return _template("nginx.conf.j2").render(
        namespace=validate.dns_name("metadata.namespace", config.namespace),
        rollout=validate.dns_name("metadata.name", config.rollout),
        tenant_variable=tenant_variable(config.sticky),
        by_address=by_address(config.sticky),
        listed=listed(config.sticky),
        pin=pin,
        pin_variable=header_variable("traffic.pin.header", pin.header) if pin is not None else "",
        stable_upstream=_upstream("stable Service", config.stable_upstream),
        canary_upstream=_upstream("canary Service", config.canary_upstream),
        answered=_told(
            "traffic.responseHeaders", (("cohort", config.headers.cohort), ("version", config.headers.version))
        ),
        told=told,
        baggage=config.told.baggage,
        direct=_direct(direct),
        allow_from=[validate.network("traffic.nginx.directPaths.allowFrom", source) for source in sources],
        trusted=[validate.network("traffic.nginx.trustedProxies", one) for one in config.trusted],
        mirror=config.mirror,
        mirrored=[(name, _MIRRORED[variable]) for name, variable in told],
    )


@lru_cache(maxsize=8192)
def config_digest(config: ProxyConfig) -> str:
    """SHA-256 of what :func:`render_config` makes, remembered: it is asked for at every look at a route."""
    return digest(render_config(config))
