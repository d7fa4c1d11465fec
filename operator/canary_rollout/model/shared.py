"""What many parsed objects have alike, kept once."""

from typing import Any, Final

from pydantic import BaseModel

_SETS: Final[dict[frozenset[str], set[str]]] = {}
"""By content; there are as many as there are ways to fill a model in, some hundreds."""
_MOST: Final = 4096


def share_field_sets(model: BaseModel) -> None:
    """Let a model, and all in it, share the sets of names of given fields with others; they are most of what a small one weighs.

    For frozen models only: nobody adds to such a set, and a copy of a model has its own.
    """
    waiting: list[Any] = [model]
    while waiting:
        found = waiting.pop()
        if isinstance(found, BaseModel):
            given = found.__pydantic_fields_set__
            if len(_SETS) < _MOST:
                object.__setattr__(found, "__pydantic_fields_set__", _SETS.setdefault(frozenset(given), given))
            waiting.extend(found.__dict__.values())
        elif isinstance(found, tuple | list):
            waiting.extend(found)
