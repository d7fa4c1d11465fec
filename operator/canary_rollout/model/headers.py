"""Headers whose names or values nobody may choose freely, because somebody relies on them.

Each pattern is one that Python and RE2 share, so that the CRD refuses the same names as the models.
"""

import re
from typing import Annotated, Final

from canary_rollout.model.fields import Text


def _names(*names: str) -> str:
    """One pattern that finds any of ``names`` (``.*`` for anything), whatever their case."""
    return f"(?i)^({'|'.join(names)})$"


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

_SET_BY_US: Final = (
    "this header frames the request or means one connection, so the operator sets it itself: remove it (the host and its "
    "port stand in the server's address)"
)
_IN_PLAIN_SIGHT: Final = (
    "these are credentials, and everybody who reads the resource reads them: put them into a Secret and name "
    "bearerTokenSecretRef or basicAuth, or secretRef in this header"
)

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
    ),
]


def is_credential(name: str) -> bool:
    """Whether the value of a header of this name is a secret."""
    return re.search(CREDENTIALS, name) is not None
