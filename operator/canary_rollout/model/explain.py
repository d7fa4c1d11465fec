"""What is wrong with a CanaryRollout, said to a person: the field as in the YAML, the value, and how to mend it."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from canary_rollout.model.fields import shown
from canary_rollout.model.spec import CanaryRolloutSpec

_MOST: Final = 8
"""Problems told at once; more would not fit a condition's message."""

_WANTED: Final = {
    "string_type": "write a string, in quotes",
    "int_type": "write a whole number, without quotes",
    "bool_type": "write true or false, without quotes",
    "model_type": "write a mapping of fields",
    "dict_type": "write a mapping of fields",
    "model_attributes_type": "write a mapping of fields",
    "tuple_type": "write a list",
}


def explain_validation_error(error: ValidationError, root: str = "spec") -> str:
    """The first eight problems of :func:`validation_problems`, joined by ``"; "``."""
    problems = validation_problems(error, root)
    more = f"; and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
    return "; ".join(problems[:_MOST]) + more


def validation_problems(error: ValidationError, root: str = "spec") -> list[str]:
    """One sentence per problem, such as ``spec.stages[2].weight: weight "25" has no unit: write "25%"``.

    Args:
        error: of a model of the spec.
        root: path of that model in the YAML.
    """
    return list(dict.fromkeys(f"{path_of(place, root)}: {sentence}" for place, sentence in located_problems(error)))


def located_problems(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Every problem with its place inside the model (field names as in the YAML, list indexes) and its sentence."""
    found = error.errors(include_url=False)
    # Of a list with a bad entry pydantic also says that it is too short, since it counts only the good ones.
    inner = {detail["loc"][:end] for detail in found for end in range(len(detail["loc"]))}
    # A field of a wrong type is reported once, and not again by the union it stands in.
    return list(
        dict.fromkeys(
            (detail["loc"], _sentence(detail))
            for detail in found
            if detail["type"] != "too_short" or detail["loc"] not in inner
        )
    )


def path_of(location: Iterable[int | str], root: str = "spec") -> str:
    """A place as people write it: ``spec.stages[2].weight``."""
    return root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _sentence(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind in _WANTED:
        return f"{shown(detail.get('input'))} is of the wrong type: {_WANTED[kind]}"
    if kind in _SENTENCES:
        return _SENTENCES[kind](detail)
    return detail["msg"].removeprefix("Value error, ")


def _no_choice(detail: ErrorDetails) -> str:
    choices = detail["ctx"]["expected"].replace("'", "")
    return f"{shown(detail['input'])} is not among the choices: write {choices}"


def _out_of_range(detail: ErrorDetails) -> str:
    limits = detail["ctx"]
    bound = f"{limits['ge']} or more" if "ge" in limits else f"{limits['le']} or less"
    return f"{shown(detail['input'])} is out of range: write {bound}"


def _wrong_length(detail: ErrorDetails) -> str:
    limits = detail["ctx"]
    bound = f"at least {limits['min_length']}" if "min_length" in limits else f"at most {limits['max_length']}"
    return f"{shown(detail['input'])} has the wrong length: write {bound} characters"


def _wrong_count(detail: ErrorDetails) -> str:
    limits = detail["ctx"]
    bound = f"at least {limits['min_length']}" if "min_length" in limits else f"at most {limits['max_length']}"
    return f"the list is too short or too long: write {bound} entries"


def _unknown_field(location: Sequence[int | str]) -> str:
    name = str(location[-1])
    known = _fields_at(CanaryRolloutSpec, location[:-1])
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"there is no such field: did you mean {close[0]}?"
    return f"there is no such field: remove it{' (known here: ' + ', '.join(known) + ')' if known else ''}"


def _fields_at(model: Any, location: Sequence[int | str]) -> list[str]:
    """Names of the fields at ``location``, empty where that is no part of the spec."""
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in here.model_fields.items()}
        if part not in fields:
            return []
        here = _model_in(fields[part].annotation)
        if here is None:
            return []
    return [field.alias or name for name, field in here.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_model_in, get_args(annotation)) if found is not None), None)


_SENTENCES: Final[dict[str, Callable[[ErrorDetails], str]]] = {
    "missing": lambda _: "is required: add it",
    "extra_forbidden": lambda detail: _unknown_field(detail["loc"]),
    "enum": _no_choice,
    "literal_error": _no_choice,
    "greater_than_equal": _out_of_range,
    "less_than_equal": _out_of_range,
    "string_too_short": _wrong_length,
    "string_too_long": _wrong_length,
    "too_short": _wrong_count,
    "too_long": _wrong_count,
}
