"""One Prometheus server through prometheus-api-client, with its traps taken out."""

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import requests
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from urllib3 import disable_warnings
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util.retry import Retry

from canary_rollout.metrics.errors import BadQueryError, OutageError, SlowQueryError
from canary_rollout.metrics.target import Target
from canary_rollout.model.plain import parse_json

LONGEST_GET: Final = 500
"""Characters of a query that is sent in the address; a longer one goes into the body of a POST. Proxies cut addresses
at 8 KiB, and escaping them costs the CPU of the request once more (measured: 3.4 instead of 1.7 ms at 600 characters)."""

LONGEST_MESSAGE: Final = 200

NO_RETRY: Final = Retry(total=0, read=False)
"""One try; the sampler decides about the next. ``read=False``: a timeout stays one, instead of a failed connection."""

_REFUSED: Final = (
    "HTTP {status}: it refuses the credentials; mend metrics.access (bearerTokenSecretRef, basicAuth, headers)"
)

_LABELS: Final = re.compile(r"\{[^{}]*\}")


class Client(Protocol):
    """Answers one query; blocks."""

    def query(self, text: str, at: float, timeout: float) -> list[Any]:
        """Return ``data.result`` of an instant query at POSIX second ``at``.

        Raises:
            QueryError: one of its subclasses.
        """
        ...

    def query_range(self, text: str, start: float, end: float, step: float, timeout: float) -> list[Any]:
        """Return ``data.result`` of a range query: one evaluation every ``step`` seconds, both ends included.

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


class _Adapter(HTTPAdapter):
    """Connections of one server, with its own authorities where it names any."""

    def __init__(self, connections: int, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_maxsize=connections, max_retries=NO_RETRY)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Hand the TLS settings to the connections."""
        if self._context is not None:
            options["ssl_context"] = self._context
        super().init_poolmanager(*args, **options)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> Any:
        """Return where and how to connect; the library would put the system's authorities beside ours."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._context is not None:
            pool.pop("ca_certs", None)
            pool.pop("ca_cert_dir", None)
            pool["ssl_context"] = self._context
        return host, pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave a connection with settings of its own as it is."""
        if self._context is None:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]  # the stubs leave it bare


class PrometheusClient:
    """One server, one pool of connections. Used from several threads.

    Proxies and credentials of the environment (``HTTP_PROXY``, ``.netrc``) are not used.

    Args:
        target: where and with which credentials; a bare address has none.
        connections: most connections at a time.
    """

    def __init__(self, target: Target | str, connections: int = 8) -> None:
        if isinstance(target, str):
            target = Target(target)
        self._session = _Session()
        self._session.trust_env = False
        self._session.verify = target.verify
        self._url, self._headers = target.url, dict(target.headers)
        if (
            not target.verify
        ):  # the resource's own field says what that means; once per query it would only fill the log
            disable_warnings(InsecureRequestWarning)
        options = {"url": target.url, "headers": self._headers, "session": self._session, "retry": NO_RETRY}
        self._get = PrometheusConnect(method="GET", disable_ssl=not target.verify, **options)
        self._post = PrometheusConnect(method="POST", disable_ssl=not target.verify, **options)
        # The longest prefix wins, so this one takes the place of the adapter the library mounts (10 connections).
        self._session.mount(f"{target.url}/", _Adapter(connections, _context(target)))

    def query(self, text: str, at: float, timeout: float) -> list[Any]:
        """Return ``data.result`` of an instant query at POSIX second ``at``; waits ``timeout`` seconds at most per read.

        Raises:
            QueryError: one of its subclasses.
        """
        connect = self._get if len(text) <= LONGEST_GET else self._post
        params = {"time": f"{at:.3f}", "timeout": f"{timeout:g}s"}
        return _asked(lambda: connect.custom_query(text, params=params, timeout=timeout), timeout)

    def query_range(self, text: str, start: float, end: float, step: float, timeout: float) -> list[Any]:
        """Return ``data.result`` of a range query: one evaluation every ``step`` seconds, both ends included.

        Raises:
            QueryError: one of its subclasses.
        """
        # The library's own takes whole seconds only.
        params = {"query": text, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        params["timeout"] = f"{timeout:g}s"

        method = "GET" if len(text) <= LONGEST_GET else "POST"

        def ask() -> Any:
            address = f"{self._url}/api/v1/query_range"
            response = self._session.request(method, address, params=params, headers=self._headers, timeout=timeout)
            return parse_json(response.content)["data"]["result"]

        return _asked(ask, timeout)

    def label_values(self, label: str, match: str, start: float, end: float, timeout: float) -> list[Any]:
        """Return the values of a label among the series that ``match`` selects, from ``start`` to ``end`` (POSIX seconds).

        Answered from the index, without reading samples; of the latest hours it may name values from a little before.

        Raises:
            QueryError: one of its subclasses.
        """
        params = {"match[]": match, "start": f"{start:.3f}", "end": f"{end:.3f}"}
        url = f"{self._url}/api/v1/label/{label}/values"
        headers, verify = self._headers, self._session.verify

        def ask() -> Any:
            answer = self._session.request("GET", url, params=params, headers=headers, verify=verify, timeout=timeout)
            return parse_json(answer.content)["data"]

        return _asked(ask, timeout)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


def _asked(ask: Callable[[], Any], timeout: float) -> list[Any]:
    """Return what a request answers with, and turn every way it can fail into one of our errors."""
    try:
        result = ask()
    except requests.ConnectTimeout as error:
        raise OutageError(f"no connection within {timeout:g} s") from error
    except requests.Timeout as error:
        raise SlowQueryError(f"no answer within {timeout:g} s") from error
    except requests.exceptions.SSLError as error:
        raise OutageError(f"TLS: {_cause(error)}; name its authority in metrics.access.tls.caSecretRef") from error
    except requests.ConnectionError as error:
        raise OutageError(f"no connection ({_cause(error)})") from error
    except (requests.RequestException, KeyError, TypeError, ValueError) as error:
        raise OutageError(f"the answer is not one of Prometheus ({type(error).__name__})") from error
    if not isinstance(result, list):
        raise OutageError("the answer is not one of Prometheus (no result)")
    return result


def _context(target: Target) -> ssl.SSLContext | None:
    """TLS settings, where they are not simply the system's."""
    if not target.url.startswith("https://") or (target.verify and not target.authorities):
        return None
    if not target.verify:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    return ssl.create_default_context(cadata=target.authorities)


def refusal(status: int, body: bytes) -> BadQueryError | SlowQueryError | OutageError:
    """Return the error for an answer that is not 200: whose fault it is decides who is held back."""
    if status in {requests.codes.unauthorized, requests.codes.forbidden}:
        return OutageError(_REFUSED.format(status=status))
    try:
        answer = parse_json(body)
        kind, message = str(answer["errorType"]), str(answer["error"])
    except (ValueError, KeyError, TypeError):
        return OutageError(f"HTTP {status}")  # a proxy, or something else that is no Prometheus
    if kind in {"bad_data", "execution"}:
        # The latter quotes whole series, whose labels may be other people's business.
        return BadQueryError(shortened(message if kind == "bad_data" else _LABELS.sub("{…}", message)))
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
