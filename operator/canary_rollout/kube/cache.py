"""What the operator knows of the cluster: plain dicts, fed by watches, lists and the answers of our own writes.

Three sources race here, so every entry follows one rule: an older resourceVersion never overwrites a newer one, and
what is known to be deleted does not come back from a list that was taken before. resourceVersions of one kind are
compared as integers, which Kubernetes guarantees since 1.35 and etcd-backed servers always kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from canary_rollout.kube.compact import THINNED, compact
from canary_rollout.kube.port import ROLLOUT_LABEL, Object, Resource

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
"""Label of EndpointSlices that names their Service."""

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """An object appeared (``before`` is ``None``), changed, or vanished (``after`` is ``None``)."""

    resource: Resource
    namespace: str
    name: str
    before: Object | None
    after: Object | None


Listener = Callable[[Change], None]
"""Called after the cache has taken a change in; must not block."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a list changed in the cache, as (namespace, name)."""

    changed: tuple[_Key, ...]
    vanished: tuple[_Key, ...]


class _Kind:
    """All objects of one kind."""

    __slots__ = ("by_label", "by_namespace", "primed", "tombstones")

    def __init__(self) -> None:
        self.by_namespace: dict[str, dict[str, Object]] = {}
        self.by_label: dict[tuple[str, str, str], set[str]] = {}
        self.tombstones: dict[_Key, int] = {}
        self.primed: set[str | None] = set()


class Cache:
    """:class:`kube.port.Reader` with its feeders. Not thread-safe: only the operator's event loop may touch it."""

    def __init__(
        self,
        *,
        keep_managed_fields: frozenset[Resource] | None = None,
        indexed_labels: tuple[str, ...] = (ROLLOUT_LABEL, SERVICE_NAME_LABEL),
    ) -> None:
        """Create an empty cache.

        Args:
            keep_managed_fields: kinds whose ``managedFields`` are read (who wrote a route last); others lose them,
                and the copy of the object that ``kubectl apply`` leaves in an annotation, to save memory. By default
                every kind that a router may write.
            indexed_labels: labels by which :meth:`select` is a lookup instead of a walk through the namespace.
        """
        self._keep = keep_managed_fields
        self._indexed = indexed_labels
        self._kinds: dict[Resource, _Kind] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` after every change that was not told to be quiet."""
        self._listeners.append(listener)

    # Reading

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object as last seen, or ``None``. Do not change it."""
        kind = self._kinds.get(resource)
        return kind.by_namespace.get(namespace or "", {}).get(name) if kind else None

    def select(self, resource: Resource, namespace: str | None, labels: Mapping[str, str]) -> list[Object]:
        """All cached objects of the namespace that carry all of ``labels``, by name. Do not change them."""
        kind = self._kinds.get(resource)
        if kind is None:
            return []
        objects = kind.by_namespace.get(namespace or "", {})
        names: Iterable[str] = objects
        for label in self._indexed:
            if label in labels:
                names = kind.by_label.get((namespace or "", label, labels[label]), ())
                break
        return [objects[name] for name in sorted(names) if _carries(objects[name], labels)]

    def all(self, resource: Resource, namespace: str | None = None) -> Iterator[Object]:
        """Every cached object of a kind (``namespace=None``: of all namespaces). Do not change them."""
        kind = self._kinds.get(resource)
        if kind is None:
            return
        if namespace is not None:
            yield from list(kind.by_namespace.get(namespace, {}).values())
            return
        for objects in list(kind.by_namespace.values()):
            yield from list(objects.values())

    def primed(self, resource: Resource, namespace: str | None = None) -> bool:
        """Whether a complete list of the kind in that namespace (``None``: everywhere) has been taken in."""
        kind = self._kinds.get(resource)
        return kind is not None and (None in kind.primed or namespace in kind.primed)

    def count(self, resource: Resource) -> int:
        """Number of cached objects of a kind."""
        kind = self._kinds.get(resource)
        return sum(len(objects) for objects in kind.by_namespace.values()) if kind else 0

    # Feeding

    def record(self, resource: Resource, obj: Object, *, quiet: bool = True) -> bool:
        """Take in an object: the answer of our own write, or of a live GET (``quiet``), or what a watch brought.

        Returns:
            whether it was news; an older or the same resourceVersion is not.
        """
        kind = self._kinds.setdefault(resource, _Kind())
        key = _key_of(obj)
        change = self._put(resource, kind, key, obj)
        if change is None:
            return False
        if not quiet:
            self._tell(change)
        return True

    def remove(
        self, resource: Resource, namespace: str | None, name: str, *, resource_version: str = "", quiet: bool = False
    ) -> bool:
        """Forget an object that is known to be gone.

        Args:
            resource: its kind.
            namespace: where it was.
            name: its name.
            resource_version: of the deletion, as a watch reports it; without one, whatever is cached goes.
            quiet: do not tell the listeners.

        Returns:
            whether it was there; an object created again after the deletion stays.
        """
        kind = self._kinds.setdefault(resource, _Kind())
        key = (namespace or "", name)
        present = kind.by_namespace.get(key[0], {}).get(name)
        known = _version(present) if present is not None else 0
        deleted = _number(resource_version)
        if deleted and known > deleted:
            return False
        kind.tombstones[key] = max(deleted, known, kind.tombstones.get(key, 0))
        if present is None:
            return False
        self._drop(kind, key, present)
        if not quiet:
            self._tell(Change(resource, *key, before=present, after=None))
        return True

    def replace(
        self, resource: Resource, namespace: str | None, items: Iterable[Object], resource_version: str
    ) -> Sweep:
        """Take in a complete list of a namespace (``None``: of all) and sweep out what it no longer holds.

        Objects that appeared after the list was taken stay; those that were deleted after it do not come back.
        """
        kind = self._kinds.setdefault(resource, _Kind())
        taken_at = _number(resource_version)
        changed: list[Change] = []
        listed: set[_Key] = set()
        for item in items:
            key = _key_of(item)
            listed.add(key)
            if (change := self._put(resource, kind, key, item)) is not None:
                changed.append(change)
        vanished: list[Change] = []
        for space in [namespace] if namespace is not None else list(kind.by_namespace):
            for name, obj in list(kind.by_namespace.get(space, {}).items()):
                if (space, name) not in listed and not (taken_at and _version(obj) > taken_at):
                    self._drop(kind, (space, name), obj)
                    vanished.append(Change(resource, space, name, before=obj, after=None))
        for key, deleted in list(kind.tombstones.items()):
            if (namespace is None or key[0] == namespace) and deleted <= taken_at:
                del kind.tombstones[key]
        kind.primed.add(namespace)
        for change in (*changed, *vanished):
            self._tell(change)
        return Sweep(
            changed=tuple((change.namespace, change.name) for change in changed),
            vanished=tuple((change.namespace, change.name) for change in vanished),
        )

    def forget(self, resource: Resource) -> None:
        """Drop a kind that is no longer watched; it is not primed any more. Listeners are not told."""
        self._kinds.pop(resource, None)

    # Inside

    def _put(self, resource: Resource, kind: _Kind, key: _Key, obj: Object) -> Change | None:
        """Take an object in; what that changed, ``None`` for nothing."""
        version = _version(obj)
        if version and version <= kind.tombstones.get(key, 0):
            return None
        before = kind.by_namespace.get(key[0], {}).get(key[1])
        if before is not None:
            if _same_or_older(obj, before):
                return None
            self._unindex(kind, key, before)
        kind.tombstones.pop(key, None)
        obj = compact(resource, obj, whole=resource not in THINNED if self._keep is None else resource in self._keep)
        kind.by_namespace.setdefault(key[0], {})[key[1]] = obj
        labels = obj["metadata"].get("labels") or {}
        for label in self._indexed:
            if label in labels:
                kind.by_label.setdefault((key[0], label, labels[label]), set()).add(key[1])
        return Change(resource, *key, before=before, after=obj)

    def _drop(self, kind: _Kind, key: _Key, obj: Object) -> None:
        objects = kind.by_namespace[key[0]]
        del objects[key[1]]
        if not objects:
            del kind.by_namespace[key[0]]
        self._unindex(kind, key, obj)

    def _unindex(self, kind: _Kind, key: _Key, obj: Object) -> None:
        labels = obj["metadata"].get("labels") or {}
        for label in self._indexed:
            if label in labels:
                names = kind.by_label[(key[0], label, labels[label])]
                names.discard(key[1])
                if not names:
                    del kind.by_label[(key[0], label, labels[label])]

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)


def _key_of(obj: Object) -> _Key:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _number(resource_version: str) -> int:
    """0 when it is absent or not a number: then order cannot be told, and the newcomer wins."""
    return int(resource_version) if resource_version.isascii() and resource_version.isdigit() else 0


def _version(obj: Object) -> int:
    return _number(obj["metadata"].get("resourceVersion") or "")


def _same_or_older(obj: Object, before: Object) -> bool:
    new, old = _version(obj), _version(before)
    if new and old:
        return new <= old
    same: bool = obj["metadata"].get("resourceVersion", "") == before["metadata"].get("resourceVersion")
    return same


def _carries(obj: Object, labels: Mapping[str, str]) -> bool:
    own = obj["metadata"].get("labels") or {}
    return all(own.get(key) == value for key, value in labels.items())
