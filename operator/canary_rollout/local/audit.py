"""Counts API calls from kube-apiserver's audit log: who called what, exactly."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: Metadata
"""


@dataclass(frozen=True, order=True)
class Call:
    """What calls are counted by. ``resource`` includes a subresource: ``"pods/status"``; empty for other paths."""

    user: str
    verb: str
    resource: str


def read_calls(log: Path, *, offset: int = 0) -> Iterator[dict[str, object]]:
    """Yield the finished calls of the log, from a byte ``offset`` on, as the API server wrote them.

    A watch is written when it ends (``ResponseComplete``) and when it starts (``ResponseStarted``); only the start is
    yielded, so that one that is still open counts, and counts once.
    """
    with log.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # being written
            event = json.loads(line)
            wanted = "ResponseStarted" if event["verb"] == "watch" else "ResponseComplete"
            if event["stage"] in {wanted, "Panic"}:
                yield event


def count_calls(log: Path, *, user: str | None = None, offset: int = 0) -> Counter[Call]:
    """Count calls by user, verb and resource.

    Args:
        log: the audit log's path.
        user: only this user's calls (``"system:serviceaccount:NAMESPACE:NAME"``).
        offset: byte offset to begin at; take ``log.stat().st_size`` before what is to be measured.
    """
    counted: Counter[Call] = Counter()
    for event in read_calls(log, offset=offset):
        name = str(_field(event, "user").get("username", ""))
        if user is not None and name != user:
            continue
        reference = _field(event, "objectRef")
        resource = str(reference.get("resource", ""))
        if reference.get("subresource"):
            resource += f"/{reference['subresource']}"
        counted[Call(name, str(event["verb"]), resource)] += 1
    return counted


def _field(event: dict[str, object], name: str) -> dict[str, object]:
    value = event.get(name)
    return value if isinstance(value, dict) else {}
