"""YAML files as a person wrote them: the objects in them, and on which line each field stands."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.kube.port import CANARY_ROLLOUTS, Object

STDIN: Final = "-"
LARGEST: Final = 8 * 1024 * 1024
"""Bytes of one file; the API server takes 3 MiB."""

Place = Sequence[int | str]
"""Keys and list indexes from the top of an object: ``("spec", "stages", 2, "weight")``."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file.

    Attributes:
        source: the file's name, or ``stdin``.
        raw: what the YAML says.
        node: the same as YAML nodes, which know their lines.
        twice: places of keys that stand twice in one mapping.
    """

    source: str
    raw: Object
    node: yaml.Node = field(repr=False, compare=False)
    twice: tuple[tuple[tuple[int | str, ...], int], ...] = ()

    @property
    def kind(self) -> str:
        """Its kind, empty where there is none."""
        kind = self.raw.get("kind")
        return kind if isinstance(kind, str) else ""

    @property
    def metadata(self) -> Object:
        """Its metadata, empty where there is none."""
        found = self.raw.get("metadata")
        return found if isinstance(found, dict) else {}

    def line(self, place: Place = ()) -> int:
        """The line (from 1) on which ``place`` stands; of its nearest parent where it is missing."""
        node, line = self.node, int(self.node.start_mark.line)
        for part in place:
            if isinstance(node, yaml.MappingNode):
                pair = next(((key, value) for key, value in node.value if key.value == part), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line
            else:
                break
        return line + 1


class UnreadableError(CliError):
    """A file that is no YAML.

    Attributes:
        source: the file.
        line: where, from 1.
        problem: what, without the place.
    """

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(f"{source}:{line}: {problem}", Exit.USAGE)
        self.source, self.line, self.problem = source, line, problem


def read(name: str) -> list[Manifest]:
    """All objects of a file (``-``: standard input), those of a List one by one; empty documents are left out.

    Raises:
        UnreadableError: it is no YAML, or a document is no mapping.
        CliError: the file cannot be read.
    """
    source = "stdin" if name == STDIN else name
    return list(objects(source, _text(name)))


def rollouts(name: str) -> list[Manifest]:
    """The CanaryRollouts of a file.

    Raises:
        CliError: there is none, or the file cannot be read.
    """
    found = [manifest for manifest in read(name) if manifest.kind == CANARY_ROLLOUTS.kind]
    if not found:
        raise CliError(f"{name} holds no CanaryRollout", Exit.USAGE)
    return found


def one_rollout(file: str, name: str | None = None) -> Manifest:
    """The one CanaryRollout of a file, or the one of this name.

    Raises:
        CliError: there is none or there are several; names them.
    """
    found = rollouts(file)
    if name is not None:
        named = [manifest for manifest in found if manifest.metadata.get("name") == name]
        if named:
            return named[0]
    elif len(found) == 1:
        return found[0]
    names = ", ".join(str(manifest.metadata.get("name")) for manifest in found)
    if name is not None:
        raise CliError(f"{file} holds no CanaryRollout {name}; it holds: {names}", Exit.USAGE)
    raise CliError(f"{file} holds several CanaryRollouts ({names}): say which with --name", Exit.USAGE)


def objects(source: str, text: str) -> Iterator[Manifest]:
    """The objects of a YAML (or JSON) text."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if node is not None:
                    yield from _document(source, node, loader.construct_document(node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(f"{error.problem or error.context or 'this is no YAML'}".split())
        raise UnreadableError(source, mark.line + 1 if mark else 1, f"this is no YAML: {words}") from error
    except (yaml.YAMLError, ValueError) as error:  # an unprintable character; a date that no calendar has
        raise UnreadableError(source, 1, f"this is no YAML: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise UnreadableError(source, 1, "this is nested too deeply") from error


def _document(source: str, node: yaml.Node, raw: Any) -> Iterator[Manifest]:
    if raw is None:
        return
    line = int(node.start_mark.line) + 1
    if not isinstance(raw, dict) or not isinstance(node, yaml.MappingNode):
        raise UnreadableError(source, line, "a document is a mapping with apiVersion, kind, metadata and spec")
    items = next((value for key, value in node.value if key.value == "items"), None)
    if str(raw.get("kind", "")).endswith("List") and isinstance(items, yaml.SequenceNode):
        for item, found in zip(items.value, raw["items"], strict=True):
            yield from _document(source, item, found)
        return
    yield Manifest(source, raw, node, tuple(_twice(node, (), set())))


def _twice(
    node: yaml.Node, place: tuple[int | str, ...], seen: set[int]
) -> Iterator[tuple[tuple[int | str, ...], int]]:
    """Keys that stand twice in one mapping: YAML takes the last silently, ``kubectl`` refuses them."""
    if id(node) in seen:
        return  # an alias
    seen.add(id(node))
    children: Iterable[tuple[int | str, yaml.Node]] = ()
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in names:
                yield (*place, key.value), int(key.start_mark.line) + 1
            names.add(str(key.value))
        children = [(str(key.value), value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = enumerate(node.value)
    for part, child in children:
        yield from _twice(child, (*place, part), seen)


def _text(name: str) -> str:
    try:
        data = sys.stdin.buffer.read(LARGEST + 1) if name == STDIN else _bytes(Path(name))
        if len(data) > LARGEST:
            raise CliError(f"{name} is larger than {LARGEST // 1024 // 1024} MiB: that is no manifest", Exit.USAGE)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(name, 1, f"this is no UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise CliError(f"{name} cannot be read: {error.strerror}", Exit.USAGE) from error


def _bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(LARGEST + 1)
