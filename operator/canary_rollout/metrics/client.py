"""One Prometheus server through prometheus-api-client, with its traps taken out."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Protocol

import requests
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from canary_rollout.metrics.errors import BadQueryError, OutageError, SlowQueryError
from canary_rollout.model.plain import parse_json

LONGEST_GET: Final = 500
"""Characters of a query that is sent in the address; a longer one goes into the body of a POST. Proxies cut addresses
at 8 KiB, and escaping them costs the CPU of the request once more (measured: 3.4 instead of 1.7 ms at 600 characters)."""

LONGEST_MESSAGE: Final = 200

NO_RETRY: Final = Retry(total=0, read=False)
"""One try; the sampler decides about the next. ``read=False``: a timeout stays one, instead of a failed connection."""

_LABELS: Final = re.compile(r"\{[^{}]*\}")


class Client(Protocol):
    """Answers one instant query; blocks."""

    def query(self, text: str, at: float, timeout: float) -> list[Any]:
        """Return ``data.result`` of an instant query at POSIX second ``at``.

        Raises:
            QueryError: one of its subclasses.
        """
        ...

    def close(self) -> None:
        """Give back the connections."""
        ...


class _Session(requests.Session):
    """Sends a POST's parameters in its body, and turns every refusal into an error with a reason.

    The library puts them into the address either way, and reports a refusal as the text of a text.
    """

    def request(  # type: ignore[override]  # the library calls it with exactly these
        self, method: str, url: str, *, params: Mapping[str, str], **options: Any
    ) -> requests.Response:
        options["allow_redirects"] = False  # a redirect could lead anywhere, and turns a POST into a GET
        if method == "POST":
            response = super().request(method, url, data=dict(params), **options)
        else:
            response = super().request(method, url, params=dict(params), **options)
        if response.status_code != requests.codes.ok:
            raise refusal(response.status_code, response.content)
        return response


class PrometheusClient:
    """One server, one pool of connections. Used from several threads.

    Proxies and credentials of the environment (``HTTP_PROXY``, ``.netrc``) are not used.

    Args:
        url: address, without a trailing slash.
        connections: most connections at a time.
        headers: sent with every query (room for credentials).
    """

    def __init__(self, url: str, connections: int = 8, headers: MutableMapping[str, str] | None = None) -> None:
        self._session = _Session()
        self._session.trust_env = False
        options = {"url": url, "headers": headers, "session": self._session, "retry": NO_RETRY}
        self._get = PrometheusConnect(method="GET", **options)
        self._post = PrometheusConnect(method="POST", **options)
        # The longest prefix wins, so this one takes the place of the adapter the library mounts (10 connections).
        self._session.mount(f"{url}/", HTTPAdapter(pool_maxsize=connections, max_retries=NO_RETRY))

    def query(self, text: str, at: float, timeout: float) -> list[Any]:
        """Return ``data.result`` of an instant query at POSIX second ``at``; waits ``timeout`` seconds at most per read.

        Raises:
            QueryError: one of its subclasses.
        """
        connect = self._get if len(text) <= LONGEST_GET else self._post
        params = {"time": f"{at:.3f}", "timeout": f"{timeout:g}s"}
        try:
            result = connect.custom_query(text, params=params, timeout=timeout)
        except requests.ConnectTimeout as error:
            raise OutageError(f"no connection within {timeout:g} s") from error
        except requests.Timeout as error:
            raise SlowQueryError(f"no answer within {timeout:g} s") from error
        except requests.ConnectionError as error:
            raise OutageError(f"no connection ({_cause(error)})") from error
        except (requests.RequestException, KeyError, TypeError) as error:
            raise OutageError(f"the answer is not one of Prometheus ({type(error).__name__})") from error
        if not isinstance(result, list):
            raise OutageError("the answer is not one of Prometheus (no result)")
        return result

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


def refusal(status: int, body: bytes) -> BadQueryError | SlowQueryError | OutageError:
    """Return the error for an answer that is not 200: whose fault it is decides who is held back."""
    try:
        answer = parse_json(body)
        kind, message = str(answer["errorType"]), str(answer["error"])
    except (ValueError, KeyError, TypeError):
        return OutageError(f"HTTP {status}")  # a proxy, or something else that is no Prometheus
    if kind == "bad_data":
        return BadQueryError(shortened(message))
    if kind == "execution":
        # It quotes whole series, whose labels may be other people's business.
        return BadQueryError(shortened(_LABELS.sub("{…}", message)))
    if kind in {"timeout", "canceled"}:
        return SlowQueryError(f"Prometheus gave up: {shortened(message)}")
    return OutageError(f"HTTP {status}, {shortened(message)}")


def shortened(message: str) -> str:
    """Return a message as one line of at most 200 characters."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 1]}…"


def _cause(error: BaseException) -> str:
    """Return the innermost reason of a failed connection; the outer ones repeat the whole address."""
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        seen.append(inner)
        reason = getattr(inner, "reason", None)
        arguments = [item for item in inner.args if isinstance(item, BaseException)]
        inner = (
            reason if isinstance(reason, BaseException) else next(iter(arguments), inner.__cause__ or inner.__context__)
        )
    system = next((item for item in reversed(seen) if isinstance(item, OSError) and item.strerror), None)
    return str(system.strerror).lower() if system is not None else type(seen[-1]).__name__
