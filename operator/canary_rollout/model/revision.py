"""What is being rolled out, as ten hex digits: the canonical hash of a pod template.

Left out of it is what sets the two versions apart for good: the labels their Deployments select by, and the identity
paths the user declares. So a canary that equals stable has stable's revision, whatever its own labels say.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

Template = dict[str, Any]
"""``spec.template`` of a Deployment, as the API server sends it."""

Path = tuple[str, ...]

_DIGITS: Final = 10


def revision_of(template: Template, selector_labels: Collection[str], identity_paths: Sequence[str]) -> str:
    """Ten hex digits that change when the pods would.

    Absent, null and empty are the same, and the order of keys does not matter.

    Args:
        template: pod template.
        selector_labels: keys of the labels that the stable or the canary Deployment selects its pods by.
        identity_paths: paths inside the template (``/spec/containers/0/env/VERSION``): list elements by index or by
            their ``name``, ``~1`` for ``/`` and ``~0`` for ``~``. A path that leads nowhere is fine. Where one list is
            addressed both ways, an index counts the elements that no path names.
    """
    paths = _parsed(identity_paths)
    document = _Document(template, selector_labels, paths)
    by_index: list[tuple[list[Any], Any]] = []
    for path in paths:
        parent = document.parent(path)
        if isinstance(parent, list) and _is_index(path[-1]):
            position = document.position(parent, path[-1])
            # Taken out at the end: the indexes of the other paths count on it.
            by_index += [(parent, parent[position])] if position is not None else []
        else:
            _remove(parent, path[-1])
    for parent, element in by_index:
        parent[:] = [item for item in parent if item is not element]
    text = json.dumps(_normal(document.root) or {}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def copy_template(
    source: Template, onto: Template, selector_labels: Collection[str], identity_paths: Sequence[str]
) -> Template:
    """The canary's template (``source``) for stable (``onto``): all of it but what is stable's own.

    Stable keeps its selector labels and its values at the identity paths; what it does not have there, the copy has not
    either (an element addressed by index excepted, since taking it out would move the others). The copy has the same
    :func:`revision_of` as ``source``. Neither argument is changed.
    """
    paths = _parsed(identity_paths)
    result = _Document(source, selector_labels, paths)
    stable = _Document(onto, selector_labels, paths)
    for path in paths:
        _transfer(stable, result, path)
    labels = (onto.get("metadata") or {}).get("labels") or {}
    kept = {key: value for key, value in labels.items() if key in selector_labels}
    if kept:
        metadata = result.root.get("metadata") or {}
        result.root["metadata"] = {**metadata, "labels": {**(metadata.get("labels") or {}), **kept}}
    return result.root


class _Document:
    """A private copy of a template without selector labels, and the list elements that a path ends on by name."""

    def __init__(self, template: Template, selector_labels: Collection[str], paths: Sequence[Path]) -> None:
        # Through JSON rather than deepcopy: elements are told apart by identity, so none may occur twice.
        self.root: Template = json.loads(json.dumps(template))
        self.named: dict[int, Any] = {}
        labels = (self.root.get("metadata") or {}).get("labels") or {}
        for key in selector_labels:
            labels.pop(key, None)
        for path in paths:
            parent = self.parent(path)
            if isinstance(parent, list) and not _is_index(path[-1]):
                for element in _called(parent, path[-1]):
                    self.hide(element)

    def hide(self, element: Any) -> None:
        """Indexes no longer count ``element``."""
        self.named[id(element)] = element

    def visible(self, items: list[Any]) -> list[int]:
        """Positions that indexes count."""
        return [position for position, item in enumerate(items) if id(item) not in self.named]

    def position(self, items: list[Any], segment: str) -> int | None:
        """Where the element is that ``segment`` speaks of."""
        if _is_index(segment):
            counted, index = self.visible(items), int(segment)
            return counted[index] if index < len(counted) else None
        return next(
            (at for at, item in enumerate(items) if isinstance(item, dict) and item.get("name") == segment), None
        )

    def step(self, node: Any, segment: str) -> Any:
        """The child, or ``None``."""
        if isinstance(node, dict):
            return node.get(segment)
        if isinstance(node, list):
            position = self.position(node, segment)
            return None if position is None else node[position]
        return None

    def parent(self, path: Path) -> Any:
        """What holds the last segment, or ``None``."""
        node: Any = self.root
        for segment in path[:-1]:
            node = self.step(node, segment)
        return node


def _transfer(stable: _Document, result: _Document, path: Path) -> None:
    """Give ``result`` what ``stable`` has at ``path``."""
    theirs: Any = stable.root
    ours: Any = result.root
    for segment in path[:-1]:
        theirs = stable.step(theirs, segment)
        child = result.step(ours, segment)
        # 0, false and "" are values of ours; only what counts as absent makes room.
        absent = child is None or (isinstance(child, dict | list) and not child)
        if absent and isinstance(ours, dict) and isinstance(theirs, dict | list):
            child = ours[segment] = type(theirs)()
        ours = child
    last = path[-1]
    if isinstance(ours, dict):
        value = stable.step(theirs, last) if isinstance(theirs, dict) else None
        if value is None:
            ours.pop(last, None)
        else:
            ours[last] = _unshared(value)
    elif isinstance(ours, list):
        their_list = theirs if isinstance(theirs, list) else []
        if _is_index(last):
            _put_at(stable, result, their_list, ours, last)
        else:
            _put_called(result, [_unshared(item) for item in _called(their_list, last)], ours, last)


def _put_at(stable: _Document, result: _Document, theirs: list[Any], ours: list[Any], segment: str) -> None:
    position = stable.position(theirs, segment)
    if position is None:
        return
    value = _unshared(theirs[position])
    counted = result.visible(ours)
    if int(segment) < len(counted):
        ours[counted[int(segment)]] = value
    elif int(segment) == len(counted):
        ours.append(value)


def _put_called(result: _Document, values: list[Any], ours: list[Any], name: str) -> None:
    for value in values:
        result.hide(value)
    first = result.position(ours, name)
    # In place: an env entry may be referred to by those after it.
    at = len(ours) if first is None else first
    rest = [item for item in ours[at:] if not (isinstance(item, dict) and item.get("name") == name)]
    ours[at:] = [*values, *rest]


def _remove(parent: Any, segment: str) -> None:
    if isinstance(parent, dict):
        parent.pop(segment, None)
    elif isinstance(parent, list):
        named = _called(parent, segment)
        parent[:] = [item for item in parent if not any(item is element for element in named)]


def _called(items: list[Any], name: str) -> list[Any]:
    return [item for item in items if isinstance(item, dict) and item.get("name") == name]


def _parsed(paths: Sequence[str]) -> list[Path]:
    """Segments of each path, shorter paths first, lower indexes first."""
    parsed = {
        tuple(segment.replace("~1", "/").replace("~0", "~") for segment in path.removeprefix("/").split("/"))
        for path in paths
    }
    return sorted(parsed, key=lambda path: (len(path), [(len(segment), segment) for segment in path]))


def _is_index(segment: str) -> bool:
    return segment.isascii() and segment.isdigit()


def _unshared(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _normal(value: Any) -> Any:
    """``value`` without null, empty maps and empty lists; ``None`` if nothing is left."""
    if isinstance(value, dict):
        return dict(_kept(value)) or None
    if isinstance(value, list):
        # Elements keep their places: an empty one still is one.
        return [_normal(item) for item in value] or None
    return value


def _kept(mapping: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, item in mapping.items():
        normal = _normal(item)
        if normal is not None:
            yield key, normal
