"""What an HTTP answer of the API server means: one typed error per thing a caller can do about it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from canary_rollout.kube.port import (
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    Object,
    UnavailableError,
)

PATCH_REFUSED: Final = "the server rejected our request due to an error in our request"
"""What the API server says (422) when a JSON Patch does not apply; validation failures name fields instead."""

LONGEST_WAIT: Final = 30.0
"""Seconds that are waited at most because an answer asks for it: what asks for an hour is a maintenance page of a proxy before
the API server, and lists, watches and rollbacks must go on when that is over. API servers ask for one second."""


def error_of(
    verb: str,
    target: str,
    code: int,
    data: bytes,
    headers: Mapping[str, str],
    *,
    operations: Object | list[Object] | None = None,
) -> ApiError:
    """The error for an answer that is no success.

    Args:
        verb: as RBAC names it.
        target: URL path that was asked.
        code: HTTP status.
        data: body, a ``Status`` object or anything a proxy may say.
        headers: of the answer; ``Retry-After`` is read.
        operations: the JSON Patch that was sent, if it was one.
    """
    status = _status(data)
    said = str(status.get("message") or data[:200].decode(errors="replace").strip() or "no reason given")
    reason = str(status.get("reason") or "")
    message = f"{verb} {target}: {said} ({code}{' ' + reason if reason else ''})"
    if code == 422 and isinstance(operations, list) and said == PATCH_REFUSED:
        # The server does not say which operation failed; with a test among them, being late is the likely reason.
        if any(operation.get("op") == "test" for operation in operations):
            return ConflictError(message, status=code, reason=reason)
        return InvalidError(message, status=code, reason=reason)
    if code in {408, 429} or code >= 500:
        return UnavailableError(message, status=code, reason=reason, retry_after=_retry_after(headers, status))
    return _BY_CODE.get(code, InvalidError if 400 <= code < 500 else ApiError)(message, status=code, reason=reason)


def watch_error(target: str, status: Object) -> ApiError:
    """The error for an ``ERROR`` event inside a watch."""
    code, reason = int(status.get("code") or 0), str(status.get("reason") or "")
    message = (
        f"watch {target}: {status.get('message') or 'the server ended it'} ({code}{' ' + reason if reason else ''})"
    )
    if code == 410:
        return GoneError(message, status=code, reason=reason)
    return UnavailableError(message, status=code, reason=reason, retry_after=_retry_after({}, status))


_BY_CODE: Final[dict[int, type[ApiError]]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
}


def _status(data: bytes) -> dict[str, Any]:
    try:
        status = json.loads(data)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _retry_after(headers: Mapping[str, str], status: Object) -> float:
    """Seconds asked for by the header, else by the Status' details; 0 when neither says. Never more than :data:`LONGEST_WAIT`."""
    details = status.get("details")
    said = headers.get("Retry-After") or (details.get("retryAfterSeconds") if isinstance(details, dict) else None)
    try:
        return min(LONGEST_WAIT, max(0.0, float(said or 0)))
    except ValueError:
        return 0.0  # an HTTP date; API servers send seconds
