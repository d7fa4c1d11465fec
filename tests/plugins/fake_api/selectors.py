"""Label and field selectors, as the API server reads them."""

import re
from collections.abc import Callable

Predicate = Callable[[dict], bool]

_SET = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)\s*$")


def labels(selector: str) -> Predicate:
    """A predicate over objects; the empty selector takes all. ValueError when it does not parse."""
    terms = [_label_term(term) for term in _split(selector)]

    def holds(obj: dict) -> bool:
        own = obj["metadata"].get("labels") or {}
        return all(term(own) for term in terms)

    return holds


def fields(selector: str) -> Predicate:
    """Equality on dotted paths, which is all that field selectors know."""
    terms = []
    for term in _split(selector):
        path, op, value = re.match(r"^([^!=]+)(==|=|!=)(.*)$", term).groups()
        terms.append((path.strip().split("."), op != "!=", value.strip()))

    def holds(obj: dict) -> bool:
        return all((str(_at(obj, path) or "") == value) is equal for path, equal, value in terms)

    return holds


def _at(obj: dict, path: list[str]):
    for part in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(part)
    return obj


def _split(selector: str) -> list[str]:
    """Terms between commas that are not inside parentheses."""
    return [term.strip() for term in re.split(r",(?![^(]*\))", selector) if term.strip()]


def _label_term(term: str) -> Callable[[dict], bool]:
    if match := _SET.match(term):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["op"] == "in":
            return lambda own: own.get(key) in values
        return lambda own: own.get(key) not in values
    if "!=" in term:
        key, value = (part.strip() for part in term.split("!=", 1))
        return lambda own: own.get(key) != value
    if "=" in term:
        key, value = (part.strip() for part in re.split(r"==?", term, maxsplit=1))
        return lambda own: own.get(key) == value
    if term.startswith("!"):
        return lambda own: term[1:].strip() not in own
    if re.fullmatch(r"[A-Za-z0-9._/-]+", term):
        return lambda own: term in own
    raise ValueError(f"unable to parse requirement: {term!r}")
