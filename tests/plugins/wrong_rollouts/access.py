"""Headers to Prometheus that frame the request, that are sent twice, or that show a secret to everybody."""

from typing import Any

from wrong_rollouts.bad import Bad

_TOKEN = {"bearerTokenSecretRef": {"name": "prom", "key": "token"}}
_BASIC = {"basicAuth": {"username": "us", "passwordSecretRef": {"name": "prom", "key": "password"}}}
_HIDDEN = {"secretRef": {"name": "prom", "key": "token"}}
_FRAMING = (
    *("Host", "content-length", "Transfer-Encoding", "CONNECTION", "Keep-Alive", "TE", "Trailer", "Upgrade"),
    *("Proxy-Connection", "Expect", "Content-Type", "Accept-Encoding"),
)
_SECRET = ("Authorization", "proxy-authorization", "Cookie", "X-API-Key", "X-Auth-Token", "Api-Secret", "PASSWORD")


def _sent(*headers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metrics.access": {"headers": list(headers), **more}}


BAD_ACCESS: tuple[Bad, ...] = (
    *(
        Bad(
            f"{name} sent to Prometheus",
            "spec.metrics.access.headers[0].name",
            "frames the request or means one connection, so the operator sets it itself: remove it",
            _sent({"name": name, "value": "x"}),
        )
        for name in _FRAMING
    ),
    *(
        Bad(
            f"{name} in plain sight",
            "spec.metrics.access.headers[0]",
            "put it into a Secret and name secretRef instead of value (for Authorization: bearerTokenSecretRef or basicAuth)",
            _sent({"name": name, "value": "x"}),
        )
        for name in _SECRET
    ),
    Bad(
        "a token under another name",
        "spec.metrics.access.headers[0].value",
        "put them into a Secret and name bearerTokenSecretRef or basicAuth, or secretRef in this header",
        _sent({"name": "X-Forwarded-User", "value": "bearer abc"}),
    ),
    *(
        Bad(
            f"Authorization beside {next(iter(other))}",
            "spec.metrics.access",
            "Authorization is what bearerTokenSecretRef and basicAuth send: remove the header, or the other one",
            _sent({"name": "X-Scope-OrgID", "value": "shop"}, {"name": "authorization", **_HIDDEN}, **other),
        )
        for other in (_TOKEN, _BASIC)
    ),
    Bad(
        "two headers of one name",
        "spec.metrics.access",
        "two headers have the same name (their case does not count), and only one would be sent: remove one",
        _sent({"name": "X-Scope-OrgID", "value": "shop"}, {"name": "x-scope-orgid", "value": "pay"}),
    ),
    Bad(
        "a secret of another server in plain sight",
        "spec.metrics.servers[0].access.headers[0]",
        "put it into a Secret",
        {
            "metrics.servers": [
                {
                    "name": "slo",
                    "prometheus": "http://slo:9090",
                    "access": {"headers": [{"name": "Cookie", "value": "a=b"}]},
                }
            ]
        },
    ),
)
