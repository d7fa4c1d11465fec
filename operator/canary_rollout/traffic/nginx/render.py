"""``nginx.conf`` from validated values. What it says depends on the spec and two Services, never on the weight."""

from dataclasses import dataclass
from functools import cache, lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from canary_rollout.model.spec import ResponseHeaders, Sticky
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.document import digest
from canary_rollout.traffic.port import RouterError


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Everything that decides the text of ``nginx.conf``.

    Attributes:
        namespace: of the CanaryRollout.
        rollout: its name.
        stable_upstream: ``(address, port)`` of stable's Service.
        canary_upstream: ``(address, port)`` of the canary's Service.
        sticky: how tenants are told apart; ``None``: each request anew.
        headers: names of the headers that tell version and cohort.
    """

    namespace: str
    rollout: str
    stable_upstream: tuple[str, int]
    canary_upstream: tuple[str, int]
    sticky: Sticky | None
    headers: ResponseHeaders


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


def _upstream(field: str, upstream: tuple[str, int]) -> str:
    address, port = upstream
    return f"{validate.address(field, address)}:{validate.whole_number(f'{field} port', port, 1, 65535)}"


def tenant_variable(sticky: Sticky | None) -> str:
    """The nginx variable that holds the tenant; empty without stickiness (then every request falls back)."""
    if sticky is None:
        return ""
    if sticky.header is not None:
        return "$http_" + validate.header_name("traffic.sticky.header", sticky.header).lower().replace("-", "_")
    return "$cookie_" + validate.cookie_name("traffic.sticky.cookie", sticky.cookie)


def _told(headers: ResponseHeaders) -> list[tuple[str, str]]:
    pairs = [
        (validate.own_header_name(f"traffic.responseHeaders.{field}", name), f"$canary_{field}")
        for field, name in (("cohort", headers.cohort), ("version", headers.version))
        if name != ""
    ]
    if len({name.lower() for name, _ in pairs}) != len(pairs):
        raise RouterError(f"traffic.responseHeaders names {headers.cohort!r} twice: give cohort and version one each")
    return pairs


def render_config(config: ProxyConfig) -> str:
    """The text of ``nginx.conf``.

    Raises:
        UnsafeValueError: a value that must not reach nginx.
        RouterError: both headers have one name.
    """
    fallback = config.sticky.fallback if config.sticky is not None else "request"
    return _template("nginx.conf.j2").render(
        namespace=validate.dns_name("metadata.namespace", config.namespace),
        rollout=validate.dns_name("metadata.name", config.rollout),
        tenant_variable=tenant_variable(config.sticky),
        fallback_variable="$remote_addr" if fallback == "clientIP" else "$request_id",
        stable_upstream=_upstream("stable Service", config.stable_upstream),
        canary_upstream=_upstream("canary Service", config.canary_upstream),
        told=_told(config.headers),
    )


@lru_cache(maxsize=8192)
def config_digest(config: ProxyConfig) -> str:
    """SHA-256 of what :func:`render_config` makes, remembered: it is asked for at every look at a route."""
    return digest(render_config(config))
