"""Headers whose names or values nobody may choose freely, because somebody relies on them.

Each pattern is one that Python and RE2 share, so that the CRD refuses the same names as the models.
"""

import re
from typing import Annotated, Final

from canary_rollout.model.fields import Text


def _names(*names: str) -> str:
    """One pattern that finds any of ``names`` (``.*`` for anything), whatever their case."""
    return f"(?i)^({'|'.join(names)})$"


RESERVED: Final = _names(
    # RFC 9110 to 9112, whole families where every member means something
    *("accept.*", "access-control-.*", "content-.*", "if-.*", "proxy-.*", "sec-.*"),
    *(
        "age",
        "allow",
        "alt-svc",
        "authorization",
        "cache-control",
        "connection",
        "cookie2?",
        "date",
        "early-data",
        "etag",
    ),
    *(
        "expect",
        "expires",
        "forwarded",
        "from",
        "host",
        "http2-settings",
        "keep-alive",
        "last-(event-id|modified)",
        "link",
    ),
    *(
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "priority",
        "range",
        "referer",
        "refresh",
        "retry-after",
        "server",
    ),
    *("set-cookie2?", "te", "trailer", "transfer-encoding", "upgrade.*", "user-agent", "vary", "via", "warning"),
    "www-authenticate",
    # what browsers are told
    *(
        "clear-site-data",
        "cross-origin-.*",
        "nel",
        "permissions-policy",
        "referrer-policy",
        "report(-to|ing-endpoints)",
    ),
    *("server-timing", "strict-transport-security", "timing-allow-origin", "x-(content-type|frame)-options"),
    # traces and callers, as apps and proxies hand them on
    *("b3", "baggage", "idempotency-key", "trace(parent|response|state)", "true-client-ip", "uber-trace-id"),
    *("x-(api-key|auth|b3|client-ip|cloud-trace|csrf|datadog|real-ip|xsrf).*", "x-(correlation|request)(-id|ed-with)"),
    # what proxies act on
    *("grpc-.*", "x-canary-client-address", "x-(accel|amzn|envoy|forwarded|http-method|original|rewrite|sendfile).*"),
)
"""Names under which neither the app nor the client may be told the version: what stood there would be overwritten."""

FRAMING: Final = _names(
    *(
        "accept-encoding",
        "connection",
        "content-.*",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
    ),
    *("te", "trailer", "transfer-encoding", "upgrade"),
)
"""Names that frame a request, or that mean one connection: whoever sends the request sets them."""

CREDENTIALS: Final = _names(
    "(proxy-)?authorization", "cookie", "(.*-)?(api-?key|access-key|credentials?|password|secret|session|token)"
)
"""Names whose value is a secret."""

_OVERWRITTEN: Final = (
    "this header has a meaning of its own, and what the app, the client or a proxy relies on would be overwritten: choose "
    "another, such as X-Canary-Version"
)
_SET_BY_US: Final = (
    "this header frames the request or means one connection, so the operator sets it itself: remove it (the host and its "
    "port stand in the server's address)"
)
_IN_PLAIN_SIGHT: Final = (
    "these are credentials, and everybody who reads the resource reads them: put them into a Secret and name "
    "bearerTokenSecretRef or basicAuth, or secretRef in this header"
)

OwnHeaderName = Annotated[
    str,
    Text(
        r"^([A-Za-z][A-Za-z0-9-]{0,62})?$",
        63,
        'a header name: use a letter, then letters, digits and "-", as in X-Canary-Version, or "" for no header',
        refused=(
            (
                RESERVED,
                _OVERWRITTEN,
            ),
        ),
        shortest=0,
        stored="empty",
    ),
]
SentHeaderName = Annotated[
    str,
    Text(
        r"^[A-Za-z][A-Za-z0-9-]{0,62}$",
        63,
        'a header name: use a letter, then letters, digits and "-", as in X-Scope-OrgID',
        refused=(
            (
                FRAMING,
                _SET_BY_US,
            ),
        ),
        stored="counts",
    ),
]
SentHeaderText = Annotated[
    str,
    Text(
        r"^[!-~]([ -~]*[!-~])?$",
        1024,
        "the value of a header: use printable ASCII without spaces at its ends",
        refused=(
            (
                r"(?i)^(basic|bearer|digest|negotiate)\s",
                _IN_PLAIN_SIGHT,
            ),
        ),
        stored="counts",
    ),
]


def is_reserved(name: str) -> bool:
    """Whether neither version may be told under this name."""
    return re.search(RESERVED, name) is not None


def is_credential(name: str) -> bool:
    """Whether the value of a header of this name is a secret."""
    return re.search(CREDENTIALS, name) is not None
