"""The objects, their versions and their history: what etcd and the generic registry do in a real API server."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import jsonpatch
import jsonpointer

from canary_rollout.kube import port
from canary_rollout.kube.answers import PATCH_REFUSED
from canary_rollout.kube.port import Object, Resource
from fake_api import ownership, selectors
from fake_api.rows import (
    BUILT_IN,
    WITH_GENERATION,
    WITH_STATUS,
    Event,
    Failure,
    Key,
    Row,
    clone,
    copy,
    kind_of,
    merged,
    specified,
    wire,
)


class Store:
    """All objects. Synchronous: one write is one atomic step, as it is under etcd's transactions."""

    def __init__(self, *, wall: Callable[[], float] = time.time, first_version: int = 100) -> None:
        self.wall = wall
        self.version = first_version
        self.compacted = 0
        self.history: list[Event] = []
        self.listeners: list[Callable[[Event], None]] = []
        self.validators: dict[Resource, Callable[[Object], list[tuple[str, str]]]] = {}
        self._rows: dict[Resource, dict[Key, Row]] = {resource: {} for resource in BUILT_IN}
        self._uids = 0
        self._pages: dict[str, tuple[list[Object], int]] = {}

    def register(self, resource: Resource) -> None:
        """Serve another kind (a CRD was installed)."""
        self._rows.setdefault(resource, {})

    def unregister(self, resource: Resource) -> None:
        """Stop serving a kind (its CRD is not installed)."""
        self._rows.pop(resource, None)

    @property
    def resources(self) -> list[Resource]:
        return list(self._rows)

    def now(self) -> str:
        return datetime.fromtimestamp(self.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # Reading

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return copy(self._row(resource, namespace, name).obj)

    def peek(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, or ``None``; for tests and simulations."""
        row = self._rows.get(resource, {}).get((namespace or "", name))
        return copy(row.obj) if row else None

    def list_objects(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        token: str = "",
    ) -> Object:
        """A ``List`` object; ``token`` goes on with an earlier one."""
        if token:
            if token not in self._pages:
                raise Failure(410, "Expired", "The provided continue parameter is too old to display a consistent list")
            items, version = self._pages.pop(token)
        else:
            by_label, by_field = self._selectors(labels, fields)
            rows = sorted(self._table(resource).items())
            items = [
                row.obj
                for key, row in rows
                if (namespace is None or key[0] == namespace) and by_label(row.obj) and by_field(row.obj)
            ]
            version = self.version
        metadata = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            more = f"page-{version}-{len(self._pages)}-{len(items)}"
            self._pages[more] = (items[limit:], version)
            metadata |= {"continue": more, "remainingItemCount": len(items) - limit}
            items = items[:limit]
        listed = [copy(item) for item in items]
        if resource.group != port.CANARY_ROLLOUTS.group:
            for item in listed:  # as the real server does for built-in kinds
                item.pop("apiVersion", None)
                item.pop("kind", None)
        return {
            "apiVersion": resource.api_version,
            "kind": f"{resource.kind}List",
            "metadata": metadata,
            "items": listed,
        }

    def compact(self) -> None:
        """Forget the history and the open pages: watches from before now, and continued lists, are 410."""
        self.compacted = self.version
        self.history.clear()
        self._pages.clear()

    # Writing

    def create(self, resource: Resource, namespace: str | None, body: Object, *, manager: str = "test") -> Object:
        obj = wire(body)
        metadata = obj.setdefault("metadata", {})
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = f"{metadata['generateName']}{self._uids + 1:05x}"
        if not metadata.get("name"):
            raise self._invalid(resource, "", [("metadata.name", "Required value: name or generateName is required")])
        key = (namespace or "", metadata["name"])
        if key in self._table(resource):
            raise Failure(409, "AlreadyExists", f'{kind_of(resource)} "{key[1]}" already exists')
        owners = ownership.Owners()
        if resource.plural in WITH_STATUS:
            obj.pop("status", None)
        self._new(resource, namespace, obj)
        self._validate(resource, obj)
        owners.update((manager, "Update", ""), {}, obj, self.now())
        return self._insert(resource, key, obj, owners)

    def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str = "",
        manager: str = "test",
    ) -> Object:
        row = self._row(resource, namespace, name)
        return self._write(resource, row, merged(copy(row.obj), wire(body)), subresource, manager)

    def json_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        operations: list[Object],
        *,
        subresource: str = "",
        manager: str = "test",
        dry_run: bool = False,
    ) -> Object:
        row = self._row(resource, namespace, name)
        try:
            new = jsonpatch.apply_patch(copy(row.obj), wire(operations))
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
            raise Failure(422, "Invalid", PATCH_REFUSED) from error
        if dry_run:
            row = Row(copy(row.obj), clone(row.owners))
        return self._write(resource, row, new, subresource, manager, quiet=dry_run)

    def replace(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str = "",
        manager: str = "test",
    ) -> Object:
        return self._write(resource, self._row(resource, namespace, name), wire(body), subresource, manager)

    def apply(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        manager: str,
        force: bool,
        subresource: str = "",
    ) -> Object:
        body = wire(body)
        if (body.get("apiVersion"), body.get("kind")) != (resource.api_version, resource.kind):
            raise Failure(400, "BadRequest", "an applied object names its apiVersion and kind")
        if body.get("metadata", {}).get("name") != name:
            raise Failure(400, "BadRequest", f"the name of the object ({name} based on URL) was undeterminable")
        if body["metadata"].get("managedFields"):
            raise Failure(400, "BadRequest", "metadata.managedFields must be nil")
        key = (namespace or "", name)
        row = self._table(resource).get(key)
        owner = (manager, "Apply", subresource)
        if row is None:
            if subresource:
                raise self._missing(resource, name)
            if body["metadata"].get("resourceVersion"):
                raise self._stale(resource, name)
            owners = ownership.Owners()
            owners.apply(owner, {}, body, self.now())
            self._new(resource, namespace, body)
            self._validate(resource, body)
            return self._insert(resource, key, body, owners)
        if (conflicts := row.owners.conflicts(manager, row.obj, body)) and not force:
            said = "; ".join(f'conflict with "{other}": .{".".join(path)}' for other, path in conflicts)
            many = "s" if len(conflicts) > 1 else ""
            raise Failure(409, "Conflict", f"Apply failed with {len(conflicts)} conflict{many}: {said}")
        self._fence(resource, row, body["metadata"])
        metadata = {key: value for key, value in body["metadata"].items() if key not in {"resourceVersion", "uid"}}
        applied = {**body, "metadata": metadata}
        owners = clone(row.owners)
        new = owners.apply(owner, copy(row.obj), applied, self.now())
        return self._write(resource, row, new, subresource, manager, owners=owners)

    def delete(self, resource: Resource, namespace: str | None, name: str) -> Object:
        row = self._row(resource, namespace, name)
        if row.obj["metadata"].get("finalizers"):
            if "deletionTimestamp" not in row.obj["metadata"]:
                new = copy(row.obj)
                new["metadata"]["deletionTimestamp"] = self.now()
                new["metadata"]["deletionGracePeriodSeconds"] = 0
                self._store(resource, row, new, row.owners)
            return copy(row.obj)
        return self._remove(resource, (namespace or "", name), row)

    # Inside

    def _table(self, resource: Resource) -> dict[Key, Row]:
        if resource not in self._rows:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        return self._rows[resource]

    def _row(self, resource: Resource, namespace: str | None, name: str) -> Row:
        if (row := self._table(resource).get((namespace or "", name))) is None:
            raise self._missing(resource, name)
        return row

    def _selectors(self, labels: str, fields: str):
        try:
            return selectors.labels(labels), selectors.fields(fields)
        except (ValueError, AttributeError) as error:
            raise Failure(400, "BadRequest", str(error)) from error

    def _new(self, resource: Resource, namespace: str | None, obj: Object) -> None:
        """Fill in what the server fills in."""
        self._uids += 1
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
        metadata = obj["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        metadata["uid"] = f"00000000-0000-4000-8000-{self._uids:012x}"
        metadata["creationTimestamp"] = self.now()
        for name in ("resourceVersion", "deletionTimestamp", "managedFields", "generation"):
            metadata.pop(name, None)
        if resource.plural in WITH_GENERATION:
            metadata["generation"] = 1

    def _insert(self, resource: Resource, key: Key, obj: Object, owners: ownership.Owners) -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        obj["metadata"]["managedFields"] = owners.rendered(resource.api_version)
        self._rows[resource][key] = Row(obj, owners)
        self._tell(Event(self.version, resource, None, obj))
        return copy(obj)

    def _write(  # noqa: C901 - the whole of a commit, in its order
        self,
        resource: Resource,
        row: Row,
        new: Object,
        subresource: str,
        manager: str,
        *,
        owners=None,
        quiet: bool = False,
    ) -> Object:
        """Commit a changed object: preconditions, what may not change, the status split, generation, no-ops."""
        old = row.obj
        self._fence(resource, row, new.get("metadata") or {})
        if subresource == "status":
            if resource.plural not in WITH_STATUS:
                raise Failure(404, "NotFound", "the server could not find the requested resource")
            status = new.get("status")
            new = copy(old)
            if status is None:
                new.pop("status", None)
            else:
                new["status"] = status
        elif resource.plural in WITH_STATUS:
            new.pop("status", None)
            if "status" in old:
                new["status"] = copy(old["status"])
        metadata, before = new.setdefault("metadata", {}), old["metadata"]
        for name in (
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
            "managedFields",
        ):
            if name in before:
                metadata[name] = before[name]
            else:
                metadata.pop(name, None)
        new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
        self._validate(resource, new)
        if resource.plural in WITH_GENERATION and specified(new) != specified(old):
            metadata["generation"] = before["generation"] + 1
        if owners is None:
            owners = clone(row.owners)
            owners.update((manager, "Update", subresource), old, new, self.now())
        if quiet:  # a dry run: the answer is made, nothing is stored
            new["metadata"]["managedFields"] = owners.rendered(resource.api_version)
            return copy(new)
        return self._store(resource, row, new, owners)

    def _store(self, resource: Resource, row: Row, new: Object, owners: ownership.Owners) -> Object:
        old = row.obj
        new["metadata"]["managedFields"] = owners.rendered(resource.api_version)
        if new == old:
            return copy(old)
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        row.obj, row.owners = new, owners
        key = (new["metadata"].get("namespace") or "", new["metadata"]["name"])
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
            return self._remove(resource, key, row)
        self._tell(Event(self.version, resource, old, new))
        return copy(new)

    def _remove(self, resource: Resource, key: Key, row: Row) -> Object:
        del self._rows[resource][key]
        self.version += 1
        gone = copy(row.obj)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell(Event(self.version, resource, gone, None))
        return gone

    def _tell(self, event: Event) -> None:
        self.history.append(event)
        for listener in list(self.listeners):
            listener(event)

    def _fence(self, resource: Resource, row: Row, metadata: Object) -> None:
        own = row.obj["metadata"]
        if metadata.get("resourceVersion") and metadata["resourceVersion"] != own["resourceVersion"]:
            raise self._stale(resource, own["name"])
        if metadata.get("uid") and metadata["uid"] != own["uid"]:
            raise self._stale(resource, own["name"], "Precondition failed: UID in precondition differs")

    def _validate(self, resource: Resource, obj: Object) -> None:
        if (validator := self.validators.get(resource)) and (causes := validator(copy(obj))):
            raise self._invalid(resource, obj["metadata"]["name"], causes)

    @staticmethod
    def _invalid(resource: Resource, name: str, causes) -> Failure:
        said = ", ".join(f"{field}: {message}" for field, message in causes)
        return Failure(422, "Invalid", f'{resource.kind} "{name}" is invalid: {said}', causes=causes)

    @staticmethod
    def _missing(resource: Resource, name: str) -> Failure:
        return Failure(404, "NotFound", f'{kind_of(resource)} "{name}" not found')

    @staticmethod
    def _stale(resource: Resource, name: str, said: str = "") -> Failure:
        said = said or ("the object has been modified; please apply your changes to the latest version and try again")
        return Failure(409, "Conflict", f'Operation cannot be fulfilled on {kind_of(resource)} "{name}": {said}')
