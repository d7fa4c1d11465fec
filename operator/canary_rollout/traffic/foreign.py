"""Somebody else's object in which we write weights: who wrote them last, and for which revision, without a field of ours.

Nothing may be added to such an object, so what we have to remember is in the name of our field manager, which the API
server keeps with the fields we changed: ``canary-rollout/3f9a1c=0123456789`` wrote them for revision 0123456789 of the
CanaryRollout whose name hashes to 3f9a1c. When anybody else changes those fields, the API server takes them from us:
that is how an overwrite is noticed, by whom, and that our record is void. Lists of weights are atomic in every API
concerned, so one path says it all (Kubernetes, "Server-Side Apply", ownership and ``x-kubernetes-list-type``).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from canary_rollout.kube.port import FIELD_MANAGER, Object
from canary_rollout.model.units import UnitError, parse_instant
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import RouterContext, RouterError

SOMEBODY: Final = "somebody"
_PREFIX: Final = f"{FIELD_MANAGER}/"
_COARSE: Final = 1.0
"""Seconds: the API server notes the time of a write in whole ones."""
_LONGEST: Final = 128
"""Characters of a field manager's name that the API server takes."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote some fields last.

    Attributes:
        ours: whether it was this operator, and nobody changed them since.
        name: the field manager.
        revisions: by hash of the CanaryRollout's name, the revision its weight was written for; empty unless ``ours``.
        at: POSIX seconds (whole ones) of that manager's last write; 0 when the object does not say.
    """

    ours: bool
    name: str
    revisions: Mapping[str, str] = field(default_factory=dict)
    at: float = 0.0

    def revision(self, rollout: str) -> str:
        """The revision that the weight of this CanaryRollout was written for; empty when it is not known."""
        return self.revisions.get(hash_of(rollout), "")

    def manager(self, rollout: str, revision: str) -> str:
        """Our field manager's name for the next write: this rollout's revision, beside what others of ours have there.

        Raises:
            RouterError: too many CanaryRollouts share the object.
        """
        revisions = {**self.revisions, hash_of(rollout): validate.revision("revision", revision)}
        name = _PREFIX + ",".join(f"{key}={value}" for key, value in sorted(revisions.items()))
        if len(name) > _LONGEST:
            raise RouterError(
                f"{len(revisions)} CanaryRollouts share one route, which is more than can be told apart: give some of them "
                "a route of their own"
            )
        return name


def last_writer(obj: Object, *path: str) -> Writer:
    """Who wrote the field at ``path`` (names, such as ``"spec", "rules"``) last.

    Several may own a field with the same value (server-side apply); when we are one of them, it still says what we wrote.
    """
    owners = [
        entry
        for entry in obj["metadata"].get("managedFields") or []
        if not entry.get("subresource") and _owns(entry.get("fieldsV1") or {}, path)
    ]
    ours = [entry for entry in owners if f"{entry.get('manager', '')}".startswith(_PREFIX)]
    if ours:
        name = f"{ours[-1]['manager']}"
        pairs = (part.partition("=") for part in name.removeprefix(_PREFIX).split(","))
        return Writer(ours=True, name=name, revisions={key: value for key, _, value in pairs}, at=_time(ours[-1]))
    last = max(owners, key=_time, default=None)
    if last is None:
        return Writer(ours=False, name=SOMEBODY)
    return Writer(ours=False, name=f"{last.get('manager', SOMEBODY)}", at=_time(last))


def authorship(writer: Writer, context: RouterContext, weight: int) -> tuple[str, str]:
    """The revision that a weight was written for, and who contests it (each empty when there is none).

    Somebody who sends the whole list with our weights in it (server-side apply under ignore rules) takes our name off it,
    and contests nothing: what the status holds as proved for a revision is still served, since the canary's template is
    held while it has traffic. A weight of 0 says nothing about a revision.
    """
    if revision := writer.revision(context.name):
        return revision, ""
    if 0 < weight == context.proved_weight:
        return context.proved_revision, ""
    return "", "" if writer.ours else writer.name


def status_written_at(obj: Object) -> float | None:
    """POSIX seconds (whole ones) of the last write of the object's status; ``None`` when the object does not say."""
    entries = obj["metadata"].get("managedFields") or []
    return max((_time(entry) for entry in entries if entry.get("subresource") == "status"), default=None)


def settled_at(writer: Writer, settle: float) -> float:
    """POSIX seconds from which a write counts as taken although nobody reports it, ``settle`` seconds after it."""
    return writer.at + _COARSE + settle


def hash_of(rollout: str) -> str:
    """Six digits that stand for a CanaryRollout's name where there is little room."""
    return hashlib.sha256(rollout.encode()).hexdigest()[:6]


def _owns(fields: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for name in path:
        if f"f:{name}" not in fields:
            return False
        fields = fields[f"f:{name}"]
    return True


def _time(entry: Mapping[str, Any]) -> float:
    try:
        return parse_instant(entry.get("time"))
    except UnitError:
        return 0.0
