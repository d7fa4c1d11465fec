"""Field ownership (server-side apply): who owns which leaf. Lists are atomic, as in routes and in all that we apply.

A leaf is a path to a value that is no non-empty mapping. Simplified against the real server: lists of containers, ports
and the like are atomic here too (there they merge by key), and ``apiVersion`` conversions do not exist.
"""

from collections.abc import Iterator

Path = tuple[str, ...]
Owner = tuple[str, str, str]
"""(manager, operation ``Apply`` or ``Update``, subresource)."""

_NOT_OWNED = {
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "uid"),
    ("metadata", "resourceVersion"),
    ("metadata", "generation"),
    ("metadata", "creationTimestamp"),
    ("metadata", "deletionTimestamp"),
    ("metadata", "deletionGracePeriodSeconds"),
    ("metadata", "selfLink"),
}


def leaves(obj: dict, prefix: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every leaf with its value."""
    for key, value in obj.items():
        path = (*prefix, key)
        if path in _NOT_OWNED or path == ("metadata", "managedFields"):
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def get(obj: dict, path: Path, default=None):
    for part in path:
        if not isinstance(obj, dict) or part not in obj:
            return default
        obj = obj[part]
    return obj


def remove(obj: dict, path: Path) -> None:
    """Remove a leaf, and the mappings it leaves empty."""
    trail = []
    for part in path[:-1]:
        if not isinstance(obj.get(part), dict):
            return
        trail.append((obj, part))
        obj = obj[part]
    obj.pop(path[-1], None)
    for parent, part in reversed(trail):
        if parent[part]:
            break
        del parent[part]


def merge(live: dict, applied: dict) -> dict:
    """``applied`` over ``live``: mappings merge, everything else is replaced."""
    merged = dict(live)
    for key, value in applied.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class Owners:
    """Who owns what of one object."""

    def __init__(self) -> None:
        self.fields: dict[Owner, set[Path]] = {}
        self.times: dict[Owner, str] = {}

    def update(self, owner: Owner, old: dict, new: dict, at: str) -> None:
        """Note a write that is no apply: what it changed is its own now, and nobody else's."""
        before, after = dict(leaves(old)), dict(leaves(new))
        changed = {path for path, value in after.items() if path not in before or before[path] != value}
        gone = before.keys() - after.keys()
        for fields in self.fields.values():
            fields.difference_update(changed | gone)
        if changed:
            self.fields.setdefault(owner, set()).update(changed)
            self.times[owner] = at
        self._prune()

    def conflicts(self, manager: str, live: dict, applied: dict) -> list[tuple[str, Path]]:
        """(manager, leaf) of every leaf that an apply would take from somebody who owns it with another value."""
        found = []
        for path, value in leaves(applied):
            if get(live, path, _ABSENT) == value or value == {}:
                continue
            for (other, operation, _), fields in self.fields.items():
                if (other, operation) != (manager, "Apply") and any(_overlap(path, field) for field in fields):
                    found.append((other, path))
        return found

    def apply(self, owner: Owner, live: dict, applied: dict, at: str) -> dict:
        """Apply by force: the merged object; ownership is noted. Leaves no longer applied go, if nobody else owns them."""
        mine = self.fields.get(owner, set())
        wanted = dict(leaves(applied))
        merged = merge(live, applied)
        for path in mine - wanted.keys():
            others = (fields for other, fields in self.fields.items() if other != owner)
            if not any(path in fields for fields in others):
                remove(merged, path)
        for other, fields in self.fields.items():
            if other != owner:
                fields.difference_update(path for path in wanted if get(live, path, _ABSENT) != wanted[path])
        if set(wanted) != mine or merged != live:
            self.times[owner] = at
        self.fields[owner] = set(wanted)
        self._prune()
        return merged

    def rendered(self, api_version: str) -> list[dict]:
        """``metadata.managedFields``."""
        return [
            {
                "manager": manager,
                "operation": operation,
                "apiVersion": api_version,
                "time": self.times[(manager, operation, sub)],
                "fieldsType": "FieldsV1",
                "fieldsV1": _fields_v1(fields),
                **({"subresource": sub} if sub else {}),
            }
            for (manager, operation, sub), fields in sorted(self.fields.items())
        ]

    def _prune(self) -> None:
        for owner in [owner for owner, fields in self.fields.items() if not fields]:
            del self.fields[owner]
            self.times.pop(owner, None)


_ABSENT = object()


def _overlap(one: Path, other: Path) -> bool:
    short = min(len(one), len(other))
    return one[:short] == other[:short]


def _fields_v1(fields: set[Path]) -> dict:
    tree: dict = {}
    for path in sorted(fields):
        node = tree
        for part in path:
            node = node.setdefault(f"f:{part}", {})
    return tree
