"""The requests to send: from a list, from JSON lines, or sampled from an access log."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import click

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.model.plain import parse_json

SAFE: Final = frozenset({"GET", "HEAD"})
"""Methods that change nothing, sent without being asked for."""

_PATH: Final = re.compile(r"/[!-~]{0,8191}")
_METHOD: Final = re.compile(r"[A-Z]{1,20}")
_IN_LOG: Final = re.compile(r'"(?P<method>[A-Z]{1,20}) (?P<path>/[!-~]*) HTTP/[0-9.]+"')
_JSON_METHODS: Final = ("method", "request_method", "requestMethod", "http_method", "verb")
_JSON_PATHS: Final = ("request_uri", "uri", "path", "requestURI", "url", "target")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, sent to both versions as it stands here.

    Attributes:
        path: path and query, percent-encoded already.
        headers: on top of those given for all.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Chosen:
    """The requests to send, and how many were left out: for their method, or because they cannot be read."""

    requests: list[Request]
    unsafe: int = 0
    unreadable: int = 0


def from_list(file: str, samples: int, methods: frozenset[str], seed: int) -> Chosen:
    """Requests of a file: ``/path``, ``GET /path``, or JSON with ``method``, ``path``, ``headers``, ``body`` on each line.

    Raises:
        CliError: a line is none of these; says which.
    """

    def read(lines: Iterable[str]) -> Iterator[Request]:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text and not text.startswith("#"):
                try:
                    yield _of_json(text) if text.startswith("{") else _of_words(text)
                except ValueError as error:
                    raise CliError(f"{file}:{number}: {error}", Exit.USAGE) from error

    return _sampled(read(_lines(file)), samples, methods, seed)


def from_log(file: str, samples: int, methods: frozenset[str], seed: int) -> Chosen:
    """Requests of an access log in common or combined format, or of one in JSON; every line has the same chance.

    Lines that hold no request (a handshake on the wrong port, a start-up message) are counted, not fatal.
    """
    unreadable = 0

    def read(lines: Iterable[str]) -> Iterator[Request]:
        nonlocal unreadable
        for line in lines:
            found = _of_log(line)
            if found is None:
                unreadable += 1
            else:
                yield found

    chosen = _sampled(read(_lines(file)), samples, methods, seed)
    chosen.unreadable = unreadable
    return chosen


def from_paths(paths: Iterable[str]) -> list[Request]:
    """GET of each path.

    Raises:
        CliError: it is none.
    """
    try:
        return [_of_words(path) for path in paths]
    except ValueError as error:
        raise CliError(str(error), Exit.USAGE) from error


def _sampled(requests: Iterable[Request], samples: int, methods: frozenset[str], seed: int) -> Chosen:
    """At most ``samples`` of them, each with the same chance, in their order; nothing else of a long log is kept.

    Source: Vitter, "Random sampling with a reservoir", 1985, algorithm R.
    """
    dice = random.Random(seed)
    kept: list[tuple[int, Request]] = []
    unsafe = place = 0
    for request in requests:
        if request.method not in methods:
            unsafe += 1
            continue
        if len(kept) < samples:
            kept.append((place, request))
        elif (at := dice.randrange(place + 1)) < samples:
            kept[at] = (place, request)
        place += 1
    return Chosen([request for _, request in sorted(kept, key=lambda item: item[0])], unsafe)


def _lines(file: str) -> Iterator[str]:
    try:
        with click.open_file(file, encoding="utf-8", errors="replace") as stream:
            yield from stream
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}", Exit.USAGE) from error


def _of_words(text: str) -> Request:
    method, _, path = text.rpartition(" ")
    return _checked(method.strip() or "GET", path)


def _of_json(text: str) -> Request:
    raw = parse_json(text)
    headers = raw.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("headers is a mapping of names to strings")
    for name, value in headers.items():
        check_header(name, value)
    body = raw.get("body")
    data = None if body is None else body.encode() if isinstance(body, str) else _dumped(body)
    if data is not None and not isinstance(body, str):
        headers = {"Content-Type": "application/json", **headers}
    return _checked(str(raw.get("method", "GET")).upper(), str(raw.get("path", "")), headers, data)


def _dumped(body: Any) -> bytes:
    import json

    return json.dumps(body).encode()


def _of_log(line: str) -> Request | None:
    try:
        if line.lstrip().startswith("{"):
            raw = parse_json(line)
            if isinstance(raw.get("request"), str):
                method, path, *_ = raw["request"].split(" ")
                return _checked(method, path)
            method = next((raw[key] for key in _JSON_METHODS if isinstance(raw.get(key), str)), "GET")
            return _checked(method, next(raw[key] for key in _JSON_PATHS if isinstance(raw.get(key), str)))
        found = _IN_LOG.search(line)
        return _checked(found["method"], found["path"]) if found else None
    except (ValueError, StopIteration, AttributeError):
        return None


def _checked(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Request:
    if not _METHOD.fullmatch(method):
        raise ValueError(f"{method[:30]!r} is no HTTP method: write GET /path, or /path alone")
    if not _PATH.fullmatch(path):
        raise ValueError(f'{path[:60]!r} is no path: it begins with "/" and is percent-encoded')
    return Request(method, path.partition("#")[0], headers or {}, body)


def check_header(name: str, value: str) -> None:
    """Refuse what would end a header early.

    Raises:
        ValueError: it is no header.
    """
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", name) or not re.fullmatch(r"[\t -~]{0,8192}", value):
        raise ValueError(f"{name[:60]!r} is no header: write Name: value")
